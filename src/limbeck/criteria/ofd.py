"""Overhaul of feature distillation: features before their activation, above a margin. https://arxiv.org/abs/1904.01866"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from limbeck.criteria.shared.maps import as_maps
from limbeck.criteria.shared.one_pass import sum_of_pieces


class OFD(nn.Module):
    """Squared L2 distance to the teacher's feature where that is positive or the student's exceeds it.

    Both features are read before their activation. The teacher's is cut off below at a margin for each channel, what it
    is on average where it is negative; where it is not positive, a student below it is left alone:
    ``sum((student - target)**2 where student > target or target > 0) / B`` (Heo et al., arXiv 1904.01866).

    For one layer. The authors sum the stages with weight 1e-3 (CIFAR) or 1e-4 (ImageNet), halved for each stage before
    the last, and map the student by a 1x1 convolution and batch norm: ``projector=conv_bn``.

    Args:
        norm: The teacher's batch norm before the activation, from whose weight and bias the authors compute the margin.
            By default the margin is measured on the example, which holds also where something is added to the norm.

    Shapes:
        student, teacher: maps (B, C, H, W) or tokens (B, N, C); gives a scalar.
    """

    mixed_precision = True  # its slices are computed in float32
    margin: Tensor  # (C, 1, 1)

    def __init__(self, norm: nn.BatchNorm2d | None = None):
        super().__init__()
        self.register_buffer("margin", None if norm is None else margin_of(norm))

    def build(self, student: Tensor, teacher: Tensor) -> None:
        """Measure the margin on an example, unless a norm has given it."""
        _, teacher = as_maps(self, student, teacher)
        if self.margin is None:
            negative = (teacher < 0).sum((0, 2, 3)).clamp(min=1)
            self.margin = (teacher.clamp(max=0).sum((0, 2, 3)) / negative)[:, None, None]

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        student, teacher = as_maps(self, student, teacher)
        return sum_of_pieces(self._distance, student, teacher) / len(student)

    def _distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        target = torch.maximum(teacher, self.margin.to(teacher.dtype))
        counted = (student > target) | (target > 0)
        return ((student - target).square() * counted).sum()


def margin_of(norm: nn.BatchNorm2d) -> Tensor:
    """The mean of the negative part of what a batch norm gives, (C, 1, 1), if that is normally distributed.

    >>> norm = nn.BatchNorm2d(1)  # weight 1, bias 0
    >>> round(margin_of(norm).item(), 4)
    -0.7979
    """
    mean, deviation = norm.bias.detach().double(), norm.weight.detach().double().abs()
    below = torch.special.ndtr(-mean / deviation)
    density = torch.exp(-0.5 * (mean / deviation).square()) / math.sqrt(2 * math.pi)
    # Where next to nothing is negative the authors take three deviations.
    margin = torch.where(below > 0.001, mean - deviation * density / below, -3 * deviation)
    return margin.to(norm.weight.dtype)[:, None, None]
