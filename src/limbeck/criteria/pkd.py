"""Pearson distillation: how each channel varies, whatever its scale. https://arxiv.org/abs/2207.02039"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from limbeck.criteria.shared.maps import as_maps
from limbeck.criteria.shared.one_pass import sum_of_pieces


class PKD(nn.Module):
    """Half the mean squared error of features standardised channel by channel: one minus Pearson's correlation.

    Each channel is brought to mean 0 and deviation 1 over all images and positions of the batch, in both features (Cao
    et al., arXiv 2207.02039; the deviation is the unbiased one plus 1e-6, as in the authors' code). The authors weigh
    it with 6, or 10 for RetinaNet teachers, on the levels of an FPN.

    Shapes:
        student, teacher: maps (B, C, H, W) or tokens (B, N, C); gives a scalar.
    """

    mixed_precision = True  # its slices are computed in float32

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        student, teacher = as_maps(self, student, teacher)
        return sum_of_pieces(_distance, student, teacher, dim=1) / student.numel()


def _distance(student: Tensor, teacher: Tensor) -> Tensor:
    return 0.5 * (_standardised(student) - _standardised(teacher)).square().sum()


def _standardised(feature: Tensor) -> Tensor:
    centred = feature - feature.mean((0, 2, 3), keepdim=True)
    # A norm has a gradient also where a dead channel makes it 0.
    length: Tensor = torch.linalg.vector_norm(centred, dim=(0, 2, 3), keepdim=True)
    return centred / (length / math.sqrt(max(1, feature[:, 0].numel() - 1)) + 1e-6)
