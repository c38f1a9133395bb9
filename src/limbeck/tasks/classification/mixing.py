"""Mixup and CutMix: a training image with another one in it, and the classes of both as its target."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from limbeck.core.match import Match
from limbeck.data.order import Key, seeded
from limbeck.tasks.classification.dataset import UNLABELLED
from limbeck.tasks.classification.transforms import Batch, TrainImages
from limbeck.training.ranges import check_ranges


@dataclass(frozen=True)
class Mixing:
    """Whether labelled training images are mixed, two and two; student and teacher see the same mixed image.

    Args:
        mixup: Blend each image with another: the parameter of the share's Beta distribution, such
            as 0.2 (arXiv 1710.09412).
        cutmix: Paste a rectangle of another image: the parameter, as of --mixup, such as 1.0 (arXiv 1905.04899); with
            --mixup, either by chance.
    """

    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        check_ranges(vars(self))

    def __bool__(self) -> bool:
        return self.mixup > 0 or self.cutmix > 0


def check_mixing(matches: Iterable[Match]) -> None:
    """Refuse criteria that ask for the one true class of an image.

    Raises:
        ValueError: One of the matches has such a criterion.
    """
    for match in matches:
        if match.declared.needs_truth:
            raise ValueError(
                f"{match} asks for the true class of an image, and mixed ones have two: leave out --mixup and "
                "--cutmix, or take KD or ChannelTransform"
            )


class MixedImages(Dataset[Batch]):
    """Training images with another labelled one in each; an image without a label stays as it is.

    What is mixed depends on (seed, epoch, index) alone, as the augmentation does, so each image is loaded twice.
    To a sample it adds ``target``, the share of each class (K): zeros without a label. ``label`` stays the image's own.

    Args:
        images: Augmented images, all of one size.
        mixing: How.
        classes: Number of classes K.
    """

    def __init__(self, images: TrainImages, mixing: Mixing, classes: int):
        from torchvision.transforms import v2  # takes as long to import as torch

        self.images, self.classes, self.reader = images, classes, images.reader
        self.labelled = [index for index, label in enumerate(images.images.labels) if label != UNLABELLED]
        kinds = {v2.MixUp: mixing.mixup, v2.CutMix: mixing.cutmix}
        self.mix: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = v2.RandomChoice(
            [kind(alpha=alpha, num_classes=classes) for kind, alpha in kinds.items() if alpha]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: Key) -> Batch:
        sample, (epoch, index) = self.images[key], key
        if sample["label"] == UNLABELLED:
            return {**sample, "target": torch.zeros(self.classes)}
        with seeded(self.images.seed, "mix", epoch, index):
            other = self.images[epoch, self.labelled[int(torch.randint(len(self.labelled), ()))]]
            pair = torch.stack([sample["image"], other["image"]]).float()
            mixed, targets = self.mix(pair, torch.stack([sample["label"], other["label"]]))
        return {**sample, "image": mixed[0].round().to(torch.uint8), "target": targets[0]}
