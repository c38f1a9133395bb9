"""Attention transfer: where the network looks. https://arxiv.org/abs/1612.03928"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.criteria.shared.maps import as_maps
from limbeck.criteria.shared.one_pass import sum_of_pieces


class AttentionTransfer(nn.Module):
    """Mean squared error between the two attention maps, each of length 1.

    A map is the mean over the channels of the values to a power, flattened and divided by its L2 norm, so channels need
    no projector; the mean is over images and positions (Zagoruyko and Komodakis, arXiv 1612.03928). For one layer; the
    usual sum is over all stages, each weighed with 1000.

    Args:
        power: The paper's p.

    Shapes:
        student (B, C_s, H, W), teacher (B, C_t, H, W), or tokens (B, N, C_s), (B, N, C_t); gives a scalar.
    """

    any_shape = True
    mixed_precision = True  # its slices are computed in float32

    def __init__(self, power: int = 2):
        super().__init__()
        self.power = power

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        student, teacher = as_maps(self, student, teacher, channels=False)
        count = student.shape[0] * student.shape[2] * student.shape[3]
        return sum_of_pieces(self._distance, student, teacher) / count

    def _distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        return (self._attention(student) - self._attention(teacher)).square().sum()

    def _attention(self, feature: Tensor) -> Tensor:
        return F.normalize(feature.pow(self.power).mean(1).flatten(1), dim=1)
