"""Object detection and instance segmentation: the detector's own losses; average precision by COCO's rules."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from accelerate.utils import gather_object
from torch import Tensor, nn

from limbeck.core.modules import device_of, evaluating
from limbeck.criteria.shared.boxes import scaled
from limbeck.tasks.detection.dataset import Objects
from limbeck.tasks.detection.pyramids import padded_size
from limbeck.tasks.detection.transforms import Batch
from limbeck.training.by_class import ByClass

NAMES = ("", "50", "75", "_small", "_medium", "_large")  # of COCO's first six numbers
WORTHLESS = 0.01  # average precision of a teacher that is no better than chance


class Detection:
    """Find the objects of an image, as boxes or as masks, too.

    Args:
        objects: What is measured on.
        masks: Instance segmentation; the metric is then the masks' average precision.
    """

    def __init__(self, objects: Objects, *, masks: bool = False):
        self.objects, self.masks = objects, masks
        self.metric = "mask_ap" if masks else "box_ap"
        self.by_class: ByClass | None = None  # of the last evaluation, by this metric

    def inputs(self, batch: Batch) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
        targets = []
        for index, labels in enumerate(batch["labels"]):
            target = {"boxes": batch["boxes"][index], "labels": labels + 1}  # 0 is the background
            targets.append({**target, "masks": batch["masks"][index]} if self.masks and "masks" in batch else target)
        return pixels(batch), targets

    def teacher_inputs(self, batch: Batch) -> tuple[list[Tensor]]:
        return (pixels(batch),)

    def truth(self, batch: Batch) -> list[Tensor]:
        """Boxes (n, 4) of each image, as fractions of what the model sees: the batch, padded."""
        height, width = padded_size(batch["image"])
        like = batch["image"][0]  # filled, not sent, since a GPU would be waited for to send it numbers
        edges = torch.cat([like.new_full((1,), side, dtype=torch.float32) for side in (width, height)]).repeat(2)
        return [boxes / edges for boxes in batch["boxes"]]

    def loss(self, output: dict[str, Tensor], batch: Batch) -> Tensor:
        """The sum of the detector's losses."""
        return torch.stack(list(output.values())).sum()

    def evaluate(self, model: nn.Module, loader: Iterable[Batch]) -> dict[str, float]:
        found: list[dict[str, Any]] = []
        with torch.no_grad(), evaluating(model):
            for batch in loader:
                for index, prediction in enumerate(detect(model, pixels(batch))):
                    shown = tuple(batch["image"][index].shape[1:])
                    found += self._as_coco(batch["index"][index], shown, prediction)
        found = gather_object(found)
        metrics: dict[str, float] = {}
        for kind, name in (("bbox", "box_ap"), ("segm", "mask_ap"))[: 1 + self.masks]:
            values, of_classes = precision(self.objects, found, kind)
            metrics |= {name + part: value for part, value in zip(NAMES, values, strict=True)}
            self.by_class = ByClass("ap", of_classes)  # masks are measured last
        return metrics

    def evaluate_teacher(self, model: nn.Module, loader: Iterable[Batch]) -> dict[str, float]:
        return self.evaluate(model, loader)

    def check_teacher(self, metrics: dict[str, float]) -> None:
        if metrics[self.metric] < WORTHLESS:
            raise ValueError(
                f"the teacher's {self.metric} is {metrics[self.metric]:.4f}: check its weights, the order of the "
                "classes and its normalisation, or pass --no-teacher-check"
            )

    def _as_coco(self, index: int, shown: tuple[int, ...], prediction: dict[str, Tensor]) -> list[dict[str, Any]]:
        """What a model predicted for an image that it saw with a height and width, in the image's own pixels."""
        image = self.objects.images[index]
        boxes = in_pixels_of(image.size, shown, prediction["boxes"].float().cpu())
        boxes[:, 2:] -= boxes[:, :2]
        masks = encoded(prediction["masks"], image.size) if self.masks else [{}] * len(boxes)
        values = zip(boxes.tolist(), prediction["labels"].tolist(), prediction["scores"].tolist(), masks, strict=True)
        return [
            {"image_id": image.id, "category_id": self.objects.ids[label - 1], "bbox": box, "score": score, **mask}
            for box, label, score, mask in values
        ]


def detect(model: nn.Module, images: list[Tensor]) -> list[dict[str, Tensor]]:
    """What a detector finds; heads with a sigmoid can find background, which is no object."""
    return [{name: value[found["labels"] > 0] for name, value in found.items()} for found in model(images)]


def predict(model: nn.Module, seen: Tensor, size: tuple[int, ...], least: float = 0.0) -> dict[str, Tensor]:
    """What a detector finds in one image, in the pixels of the image itself: boxes, labels from 0, scores, and masks.

    Args:
        model: In eval mode.
        seen: The image (3, h, w) uint8 as the model sees it.
        size: Height and width of the image itself.
        least: Score of the least certain object that is kept.
    """
    found = detect(model, [seen.to(device_of(model)).float() / 255])[0]
    kept = found["scores"] >= least
    found = {name: value[kept].cpu() for name, value in found.items()}
    boxes = in_pixels_of(size, tuple(seen.shape[1:]), found["boxes"])
    prediction = {"boxes": boxes, "labels": found["labels"] - 1, "scores": found["scores"]}
    return {**prediction, "masks": masks_at(size, found["masks"])} if "masks" in found else prediction


def pixels(batch: Batch) -> list[Tensor]:
    """Images in [0, 1]; a detector normalises them itself."""
    return [image.float() / 255 for image in batch["image"]]


def in_pixels_of(size: tuple[int, ...], shown: tuple[int, ...], boxes: Tensor) -> Tensor:
    """Boxes (n, 4) in an image of a height and width, from those where it was shown with others."""
    down, right = size[0] / shown[0], size[1] / shown[1]
    return scaled(boxes, right, down)


def masks_at(size: tuple[int, ...], masks: Tensor) -> Tensor:
    """Masks (n, H, W) bool of a size, from probabilities (n, 1, h, w)."""
    if tuple(masks.shape[-2:]) != tuple(size):
        masks = F.interpolate(masks.float(), tuple(size), mode="bilinear", align_corners=False)
    return masks[:, 0] > 0.5


def encoded(masks: Tensor, size: tuple[int, ...]) -> list[dict[str, Any]]:
    """Masks (n, 1, h, w) as run-length encodings at the image's own size."""
    # One by one: a hundred of a large image take a gigabyte.
    return [{"segmentation": run_lengths(masks_at(size, each[None].cpu())[0])} for each in masks]


def run_lengths(mask: Tensor) -> dict[str, Any]:
    """A mask (H, W) bool on a CPU as COCO's tools encode it, with ``counts`` in bytes."""
    from faster_coco_eval.core import mask as coco

    runs: dict[str, Any] = coco.encode(mask.to(torch.uint8).numpy().T.copy().T)
    return runs


def precision(objects: Objects, found: list[dict[str, Any]], kind: str) -> tuple[list[float], list[float | None]]:
    """COCO's first six numbers for boxes ("bbox") or masks ("segm"), and the average precision of each class.

    The former are -1 where there is no object of that size, the latter ``None`` where there is none of the class.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    if kind == "segm":  # or a detection would be as small or large as its box, not its mask
        found = [{name: value for name, value in each.items() if name != "bbox"} for each in found]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(as_coco(objects))
        predictions = truth.loadRes(found) if found else COCO({**as_coco(objects), "annotations": []})
        measured = COCOeval_faster(truth, predictions, iouType=kind)
        measured.evaluate()
        measured.accumulate()
        measured.summarize()
    curves = measured.eval["precision"][:, :, :, 0, -1]  # (thresholds, recalls, classes), of all sizes
    place = {each: index for index, each in enumerate(measured.params.catIds)}  # not in the order of the classes
    by_class = [curves[:, :, place[each]] for each in objects.ids]
    return (
        [float(value) for value in measured.stats[:6]],
        [float(curve.mean()) if (curve > -1).all() else None for curve in by_class],
    )


def as_coco(objects: Objects) -> dict[str, Any]:
    """Objects as the content of a COCO json."""
    annotations: list[dict[str, Any]] = []
    for image in objects.images:
        for index, (left, top, right, bottom) in enumerate(image.boxes.tolist()):
            annotation = {
                "id": len(annotations) + 1,
                "image_id": image.id,
                "category_id": objects.ids[int(image.labels[index])],
                "bbox": [left, top, right - left, bottom - top],
                "area": float(image.areas[index]),
                "iscrowd": int(image.crowd[index]),
            }
            annotations.append({**annotation, "segmentation": image.outlines[index]} if image.outlines else annotation)
    return {
        "images": [{"id": image.id, "height": image.size[0], "width": image.size[1]} for image in objects.images],
        "annotations": annotations,
        "categories": [{"id": each, "name": name} for each, name in zip(objects.ids, objects.classes, strict=True)],
    }
