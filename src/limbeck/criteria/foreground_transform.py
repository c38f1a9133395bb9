"""Channel-wise transformation, where the objects are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from limbeck.core.precision import exact
from limbeck.criteria.channel_transform import ChannelTransform
from limbeck.criteria.shared.boxes import cells_of, check_boxes
from limbeck.criteria.shared.maps import only_maps


class ForegroundTransform(nn.Module):
    """``ChannelTransform`` with less weight at positions outside all boxes.

    ``sum(M * (transform(student) - teacher)**2) / B``, where M is 1 at the positions that a box touches, and
    ``background`` elsewhere: the loss of arXiv 2303.13212, weighed by the true boxes as FGD (arXiv 2111.11837) and
    others do. The idea is common, this form of it this library's own.

    Args:
        background: Weight of a position outside all boxes, from 0 on.
        hidden: As for ``ChannelTransform``.

    Shapes:
        student (B, C_s, H, W), teacher (B, C_t, H, W); truth: for each image boxes (n, 4), as left, top, right, bottom
        in fractions of the image that the model sees. Gives a scalar.

    Raises:
        ValueError: The truth is not boxes for each image, or the features differ in more than their channels.
    """

    mixed_precision = True  # as ChannelTransform
    needs_truth = "the boxes of each image"

    def __init__(self, background: float = 0.1, hidden: int | None = None):
        super().__init__()
        if background < 0:
            raise ValueError(f"background is {background}; it is a weight, 0 or more")
        self.background = background
        self.transform = ChannelTransform(hidden)

    def build(self, student: Tensor, teacher: Tensor) -> None:
        """Make the transform for features like these."""
        only_maps(self, student, teacher)
        self.transform.build(student, teacher)

    def project(self, student: Tensor) -> Tensor:
        """The student's feature, transformed."""
        return self.transform.project(student)

    def forward(self, student: Tensor, teacher: Tensor, truth: Any) -> Tensor:
        check_boxes(self, truth, len(student))
        where = exact(student[:0])  # device and precision, in which the boxes' edges are found
        inside = torch.stack([cells_of(boxes.to(where), *student.shape[2:]) > 0 for boxes in truth])
        weights = torch.where(inside, 1.0, self.background).to(where)
        loss: Tensor = self.transform(student, teacher, weights.flatten(1))
        return loss
