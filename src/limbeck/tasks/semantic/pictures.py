"""Pictures of what segmenters predict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torchvision.utils import draw_segmentation_masks

from limbeck.core.modules import device_of, evaluating
from limbeck.data.order import Key
from limbeck.models.model import Model
from limbeck.tasks.pictures import Panels, colours
from limbeck.tasks.semantic.dataset import Masks
from limbeck.tasks.semantic.task import predict
from limbeck.tasks.semantic.transforms import TrainMasks, ValMasks


@torch.no_grad()
def sheets(masks: Masks, data: ValMasks, models: Mapping[str, Model], count: int) -> Iterator[tuple[str, Panels]]:
    """The first images of a validation set, their masks, and what segmenters predict for them."""
    for index in range(min(count, len(masks))):
        image, truth = masks.read(index)
        size = tuple(truth.shape[1:])
        seen = data[index]["image"]
        panels = {"image": image, "truth": overlay(image, truth[0], len(masks.classes))}
        for title, model in models.items():
            device = device_of(model.module)
            with evaluating(model.module):
                predicted = predict(model.module, seen.unsqueeze(0).to(device), model.inputs, size)[0]
            panels[title] = overlay(image, predicted.cpu(), len(masks.classes))
        yield masks.images[index].stem, panels


def batch_panels(data: TrainMasks, keys: Sequence[Key]) -> Iterator[tuple[str, Tensor]]:
    """Augmented images under their masks, called by their files."""
    for epoch, index in keys:
        sample = data[epoch, index]
        yield data.masks.images[index].stem, overlay(sample["image"], sample["mask"], len(data.masks.classes))


def overlay(image: Tensor, mask: Tensor, classes: int, opacity: float = 0.6) -> Tensor:
    """An image (3, H, W) uint8 with each class of a mask (H, W) in its colour; what has none stays as it is."""
    each = mask == torch.arange(classes).view(-1, 1, 1)
    drawn: Tensor = draw_segmentation_masks(image, each, alpha=opacity, colors=colours(classes))
    return drawn
