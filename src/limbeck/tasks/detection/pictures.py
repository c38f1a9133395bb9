"""Pictures of what detectors find."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from limbeck.core.modules import evaluating
from limbeck.data.order import Key
from limbeck.models.model import Model
from limbeck.tasks.detection.dataset import Objects
from limbeck.tasks.detection.task import predict
from limbeck.tasks.detection.transforms import Sample, TrainObjects, ValObjects, drawn
from limbeck.tasks.lettering import font_file, size_on
from limbeck.tasks.pictures import PANEL, Panels, colours


@torch.no_grad()
def sheets(
    objects: Objects, data: ValObjects, models: Mapping[str, Model], count: int, score: float
) -> Iterator[tuple[str, Panels]]:
    """The first images of a validation set, their objects, and what detectors find with at least this score."""
    for index in range(min(count, len(objects))):
        image, annotated = objects.read(index), objects.images[index]
        seen = data[index]["image"]
        outlines = drawn(annotated, torch.ones_like(annotated.crowd)).bool() if annotated.outlines else None
        panels = {
            "image": image,
            "truth": outlined(image, annotated.boxes, annotated.labels, objects.classes, outlines),
        }
        for title, model in models.items():
            with evaluating(model.module):
                prediction = predict(model.module, seen, annotated.size, score)
            panels[title] = outlined(image, classes=objects.classes, **prediction)
        yield annotated.path.stem, panels


def batch_panels(data: TrainObjects, keys: Sequence[Key]) -> Iterator[tuple[str, Tensor]]:
    """Augmented images with their objects, called by their files."""
    for key in keys:
        sample = as_shown(data[key])
        masks = sample["masks"].bool() if "masks" in sample else None
        panel = outlined(sample["image"], sample["boxes"], sample["labels"], data.objects.classes, masks)
        yield data.objects.images[sample["index"]].path.stem, panel


def as_shown(sample: Sample) -> Sample:
    """A sample at the size that the sheet of a batch has for it, so that frames and names stay as they are drawn."""
    height, width = sample["image"].shape[1:]
    scale = PANEL / max(height, width)
    size = [max(1, round(scale * height)), max(1, round(scale * width))]
    shown = {**sample, "image": resize(sample["image"], size, antialias=True), "boxes": sample["boxes"] * scale}
    if "masks" in sample:
        shown["masks"] = resize(sample["masks"], size, InterpolationMode.NEAREST)
    return shown


def outlined(
    image: Tensor,
    boxes: Tensor,
    labels: Tensor,
    classes: Sequence[str],
    masks: Tensor | None = None,
    scores: Tensor | None = None,
) -> Tensor:
    """An image (3, H, W) uint8 with boxes (n, 4), and masks (n, H, W), in the colours of their classes, and named."""
    if not len(boxes):
        return image
    palette, named = colours(len(classes)), [classes[label] for label in labels.tolist()]
    if scores is not None:
        named = [f"{name} {score:.2f}" for name, score in zip(named, scores.tolist(), strict=True)]
    chosen = [palette[label] for label in labels.tolist()]
    if masks is not None:
        image = draw_segmentation_masks(image, masks, alpha=0.5, colors=chosen)
    font, letters = font_file("".join(classes)), size_on(*image.shape[1:])
    framed: Tensor = draw_bounding_boxes(
        image,
        boxes,
        named,
        chosen,
        width=max(2, letters // 6),
        font=font,
        font_size=letters if font else None,
        label_colors="black",
        label_background_colors=chosen,
        fill_labels=True,
    )
    return framed
