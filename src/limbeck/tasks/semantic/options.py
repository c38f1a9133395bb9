"""What may be chosen for a segmenter: its data, and its own loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from limbeck.data.inputs import Inputs
from limbeck.tasks.options import AnnotatedImages
from limbeck.tasks.semantic.dataset import Masks
from limbeck.tasks.semantic.task import Semantic
from limbeck.training.ranges import check_ranges


@dataclass(frozen=True)
class Data(AnnotatedImages):
    """Which images and masks are trained on, and how they are augmented.

    Args:
        data: A folder with train/images/*.jpg and train/masks/*.png (of one stem each), val/ or test/ likewise, and
            classes.txt; or with images/ and masks/, of which a tenth is held out; or Pascal VOC, or
            Cityscapes (leftImg8bit and gtFine): docs/data.md has them all.
        val_data: A folder like --data with the validation images, where they are not in --data.
        split: The part of the data that is measured on; by default val, or else test.
        on_bad_data: What becomes of an image or mask that cannot be used: an error, or left out and counted (skip).
        ignore_index: A value in the masks, beside 255, for pixels that count for nothing.
        images: Use only this many training images, chosen by --data-seed.
        short_side: Pixels that the shorter side of an image is brought to; by default that of a typical one. Masks are
            measured at their size.
        crop: Height and width of what is trained on; by default those of a typical image, up to what the models can
            take.
        scale: Smallest and largest factor by which training images are scaled.
        colour: Largest change of brightness, contrast and saturation in training.
        data_seed: Seed of the choices above, apart from --seed so that runs with other seeds see the same images.
    """

    ignore_index: int | None = None
    images: int | None = None
    short_side: int | None = None
    crop: tuple[int, int] | None = None
    scale: tuple[float, float] = (0.5, 2.0)
    colour: float = 0.5
    data_seed: int = 0

    def __post_init__(self) -> None:
        check_ranges(vars(self))
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale is {self.scale}; it is the smallest and the largest factor")


@dataclass(frozen=True)
class LossOptions:
    """The student's own loss.

    Args:
        auxiliary: Weight of the auxiliary head's loss, where the student has one.
        dice: Weight of the Dice loss beside the cross entropy.
        class_weights: Weights of the classes in the cross entropy: none, or balanced (by the inverse root of a class's
            share of the pixels).
    """

    auxiliary: float = 0.4
    dice: float = 0.0
    class_weights: Literal["none", "balanced"] = "none"

    def task(self, masks: Masks, student: Inputs, teacher: Inputs | None = None) -> Semantic:
        weights = balanced(masks) if self.class_weights == "balanced" else None
        return Semantic(
            masks.classes, student, teacher, auxiliary=self.auxiliary, dice=self.dice, class_weights=weights
        )


def balanced(masks: Masks) -> torch.Tensor:
    """Weights of the classes (K): one over the root of a class's share of the labelled pixels, with mean 1."""
    counts = torch.zeros(256, dtype=torch.float64)
    for index in range(len(masks)):
        counts += torch.bincount(masks.read_mask(index).flatten().long(), minlength=256)
    counts = counts[: len(masks.classes)]
    weights = (counts.sum() / counts.clamp(min=1)).sqrt() * (counts > 0)
    return (weights / weights[counts > 0].mean()).float()
