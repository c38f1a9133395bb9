"""What may be chosen for a detector: its data, what it starts from, and where it is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from limbeck.tasks.options import AnnotatedImages
from limbeck.training.ranges import check_ranges


@dataclass(frozen=True)
class Data(AnnotatedImages):
    """Which images and objects are trained on, and how they are augmented.

    Args:
        data: A folder with annotations/instances_train2017.json or annotations/train.json (COCO json), val or test
            likewise, and the images in images/train2017, train2017 or train, and so on; or YOLO's data.yaml; or Pascal
            VOC's xml files: docs/data.md has them all.
        val_data: A folder like --data with the validation images, where they are not in --data.
        split: The part of the data that is measured on; by default val, or else test.
        on_bad_data: What becomes of an image that is missing or unreadable and of an annotation that makes no sense: an
            error, or left out and counted (skip).
        images: Use only this many training images, chosen by --data-seed.
        short_side: Pixels that the shorter side of an image is brought to: in training one of these by chance, for
            measuring the last. Student and teacher see the same pixels.
        long_side: Pixels that the longer side has at most.
        flip: Probability that a training image is mirrored.
        colour: Largest change of brightness, contrast and saturation in training.
        data_seed: Seed of the choice of images, apart from --seed so that runs with other seeds see the same ones.
    """

    images: int | None = None
    short_side: tuple[int, ...] = (800,)
    long_side: int = 1333
    flip: float = 0.5
    colour: float = 0.0
    data_seed: int = 0

    def __post_init__(self) -> None:
        check_ranges(vars(self))
        if not self.short_side:
            raise ValueError("short_side is empty; it must be 1 or more")
        if self.long_side < max(self.short_side):
            raise ValueError(f"long_side is {self.long_side}, less than a short side, {max(self.short_side)}")


@dataclass(frozen=True)
class StudentOptions:
    """What the student starts from.

    Args:
        student_weights: A .safetensors or .pth file to start the student from, or pretrained (what torchvision
            publishes for torchvision:NAME, trained on COCO); the outputs of other classes are left out. From scratch by
            default.
        student_backbone: What the student's backbone starts from: a file with the weights of a classifier, or timm:NAME
            for published ones.
        inherit: Start the student's neck and heads from the teacher's, wherever names and shapes agree.
        frozen_norms: Keep the batch norms of the student's backbone as they were loaded.
    """

    student_weights: str | None = None
    student_backbone: str | None = None
    inherit: bool = False
    frozen_norms: bool = False


@dataclass(frozen=True)
class LevelOptions:
    """Where in a detector features are read.

    Args:
        layers: Where to read: levels (of both pyramids, paired by stride) or stages (of both backbones); by default
            levels.
        strides: Read only the levels at these strides, in pixels; by default all that both pyramids have.
        reduction: How the levels share a weight that is a number: sum (of all positions, so that the finest level
            weighs most; the default) or equal (each level alike).
    """

    layers: Literal["levels", "stages"] | None = None
    strides: tuple[int, ...] = ()
    reduction: Literal["sum", "equal"] | None = None
