"""The student's own loss: how labels are smoothed, and what the classes weigh."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from limbeck.data.inputs import Inputs
from limbeck.tasks.classification.dataset import UNLABELLED, Images
from limbeck.tasks.classification.task import Classification


@dataclass(frozen=True)
class LossOptions:
    """The cross entropy, of which the teacher and what follows it know nothing.

    Args:
        label_smoothing: Part of each label that is spread over all classes. A teacher trained with it tells less about
            the classes beside the true one (arXiv 1906.02629).
        class_weights: Weights of the classes: none, or balanced (by the inverse of a class's share of the labelled
            images).
    """

    label_smoothing: float = 0.0
    class_weights: Literal["none", "balanced"] = "none"

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing is {self.label_smoothing}; it is a part from 0 up to, but not, 1")

    def task(self, images: Images, student: Inputs, teacher: Inputs | None = None) -> Classification:
        classes, labelled = len(images.classes), [label for label in images.labels if label != UNLABELLED]
        weights = balanced(labelled, classes) if self.class_weights == "balanced" else None
        share = len(labelled) / len(images)
        return Classification(classes, student, teacher, self.label_smoothing, share, weights)


def balanced(labels: Sequence[int], classes: int) -> Tensor:
    """Weights of the classes (K) for the cross entropy: one over a class's share of the images, on average 1 an image.

    A class without images has weight 0.

    >>> balanced([0, 0, 0, 1], classes=2).tolist()
    [0.6666666865348816, 2.0]
    """
    counts = torch.bincount(torch.tensor(labels), minlength=classes)
    present = int((counts > 0).sum())
    return torch.where(counts > 0, len(labels) / (present * counts.clamp(min=1)), 0.0)
