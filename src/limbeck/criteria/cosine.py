"""Cosine and smooth L1 distance, as used on the features of foundation models. https://arxiv.org/abs/2312.06709"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.criteria.shared.maps import as_maps
from limbeck.criteria.shared.one_pass import sum_of_pieces


class Cosine(nn.Module):
    """One minus the cosine over the channels, and smooth L1 distance, each a mean over positions.

    ``cosine * mean(1 - cos(student, teacher)) + smooth_l1 * mean(smooth_l1(student, teacher))``. AM-RADIO (arXiv
    2312.06709) and Theia (arXiv 2407.20179) take 0.9 and 0.1, UNIC (arXiv 2408.05088) 0.5 and 0.5.

    Args:
        cosine: Weight of the direction.
        smooth_l1: Weight of the values.

    Shapes:
        student, teacher: maps (B, C, H, W) or tokens (B, N, C); gives a scalar.
    """

    mixed_precision = True  # its slices are computed in float32

    def __init__(self, cosine: float = 0.9, smooth_l1: float = 0.1):
        super().__init__()
        self.cosine, self.smooth_l1 = cosine, smooth_l1

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        student, teacher = as_maps(self, student, teacher)
        positions = student.numel() // student.shape[1]
        return sum_of_pieces(self._distance, student, teacher) / positions

    def _distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        directions = (1 - F.cosine_similarity(student, teacher, dim=1)).sum()
        values = F.smooth_l1_loss(student, teacher, reduction="sum") / student.shape[1]
        return self.cosine * directions + self.smooth_l1 * values
