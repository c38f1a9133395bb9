"""From an image and its mask to what a segmenter is trained and measured with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from limbeck.data.order import Key, seeded
from limbeck.data.reader import Reader
from limbeck.tasks.semantic.classes import IGNORED
from limbeck.tasks.semantic.dataset import Masks

Batch = dict[str, Tensor]  # image (B, 3, H, W) uint8, mask (B, H, W) int64 (training) or as in the file (validation)
Both = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Together:
    """Changes an image and its mask alike; an object, since a loader's worker may get it pickled."""

    compose: v2.Compose

    def __call__(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        image, mask = self.compose(tv_tensors.Image(image), tv_tensors.Mask(mask))
        return image.as_subclass(Tensor), mask.as_subclass(Tensor)


def augmentation(
    crop: tuple[int, int], short_side: int, scale: tuple[float, float] = (0.5, 2.0), colour: float = 0.5
) -> Both:
    """Random scale, crop, flip and colour, of image and mask together; what is outside the image is ignored.

    Args:
        crop: Height and width in pixels.
        short_side: Of the image, in pixels, at scale 1.
        scale: Smallest and largest.
        colour: Largest change of brightness, contrast and saturation, as a fraction; 0 for none.
    """
    low, high = (max(1, round(factor * short_side)) for factor in scale)
    steps = [
        v2.RandomResize(low, high + 1, antialias=True),
        v2.RandomCrop(crop, pad_if_needed=True, fill={tv_tensors.Image: 0, tv_tensors.Mask: IGNORED}),
        v2.RandomHorizontalFlip(),
    ]
    if colour:
        steps.append(v2.ColorJitter(colour, colour, colour))
    return Together(v2.Compose(steps))


class TrainMasks(Dataset[Batch]):
    """Augmented images and masks; the augmentation depends on (seed, epoch, index) alone."""

    def __init__(self, masks: Masks, augment: Both, seed: int):
        self.masks, self.augment, self.seed = masks, augment, seed
        self.reader = Reader(masks)

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, key: Key) -> Batch:
        epoch, index = key
        with seeded(self.seed, "augment", epoch, index):
            _, pair = self.reader(index)
            image, mask = self.augment(*pair)
        return {"image": image, "mask": mask[0].long()}


class ValMasks(Dataset[Batch]):
    """Images with their shorter side brought to ``short_side``; masks as they are, so that each pixel is measured."""

    def __init__(self, masks: Masks, short_side: int):
        self.masks, self.resize = masks, v2.Resize(short_side, antialias=True)
        self.reader = Reader(masks)

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, index: int) -> Batch:
        index, (image, mask) = self.reader(index)
        return {"image": self.resize(image), "mask": mask[0].long(), "index": torch.tensor(index)}
