"""Pictures of what detectors find."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from limbeck.core.modules import evaluating
from limbeck.data.order import Key
from limbeck.models.model import Model
from limbeck.tasks.detection.dataset import Objects
from limbeck.tasks.detection.task import predict
from limbeck.tasks.detection.transforms import TrainObjects, ValObjects, drawn
from limbeck.tasks.lettering import SIZE, font_file
from limbeck.tasks.pictures import Panels, colours


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
        sample = data[key]
        masks = sample["masks"].bool() if "masks" in sample else None
        panel = outlined(sample["image"], sample["boxes"], sample["labels"], data.objects.classes, masks)
        yield data.objects.images[sample["index"]].path.stem, panel


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
    font = font_file("".join(classes))
    framed: Tensor = draw_bounding_boxes(
        image,
        boxes,
        named,
        chosen,
        width=2,
        font=font,
        font_size=SIZE if font else None,
        label_colors="black",
        label_background_colors=chosen,
        fill_labels=True,
    )
    return framed
