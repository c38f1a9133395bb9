"""Classes that have few images, made to count as much as the others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from limbeck.tasks.classification.dataset import UNLABELLED


def balanced(labels: Sequence[int], classes: int) -> Tensor:
    """Weights of the classes (K) for the cross entropy: one over a class's share of the images, on average 1 an image.

    A class without images has weight 0.

    >>> balanced([0, 0, 0, 1], classes=2).tolist()
    [0.6666666865348816, 2.0]
    """
    known = torch.tensor([label for label in labels if label != UNLABELLED])
    counts = torch.bincount(known, minlength=classes)
    present = int((counts > 0).sum())
    return torch.where(counts > 0, len(known) / (present * counts.clamp(min=1)), 0.0)
