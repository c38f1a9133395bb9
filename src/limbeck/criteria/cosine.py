"""Cosine and smooth L1 distance, as used on the features of foundation models. https://arxiv.org/abs/2312.06709"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.core.precision import exact
from limbeck.criteria.shared.maps import as_maps
from limbeck.criteria.shared.one_pass import sum_of_pieces


class Cosine(nn.Module):
    """One minus the cosine, of each position or of the whole map, and smooth L1 distance.

    ``cosine * mean(1 - cos(student, teacher)) + smooth_l1 * mean(smooth_l1(student, teacher))``.

    - AM-RADIO (arXiv 2312.06709): 0.9 and 0.1, of each position.
    - UNIC (arXiv 2408.05088): 0.5 and 0.5, of each position; it standardises by running statistics.
    - Theia (arXiv 2407.20179): ``over="map", standardise=True``, 0.9 and 0.1; it standardises by statistics of the data
      set.

    Args:
        cosine: Weight of the direction.
        smooth_l1: Weight of the values.
        over: What one cosine is of: the ``"channels"`` of a position, or the whole ``"map"`` of an image.
        standardise: Bring each of the teacher's channels to mean 0 and deviation 1 first, over positions and batch.

    Shapes:
        student, teacher: maps (B, C, H, W) or tokens (B, N, C); gives a scalar.
    """

    mixed_precision = True  # its slices are computed in float32

    def __init__(
        self,
        cosine: float = 0.9,
        smooth_l1: float = 0.1,
        *,
        over: Literal["channels", "map"] = "channels",
        standardise: bool = False,
    ):
        super().__init__()
        if over not in ("channels", "map"):
            raise ValueError(f"over is {over!r}; it is 'channels' or 'map'")
        self.cosine, self.smooth_l1 = cosine, smooth_l1
        self.over, self.standardise = over, standardise

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        student, teacher = as_maps(self, student, teacher)
        if self.standardise:
            variance, mean = torch.var_mean(exact(teacher), (0, 2, 3), correction=0, keepdim=True)
            teacher = (teacher - mean) / (variance + 1e-6).sqrt()
        return sum_of_pieces(self._distance, student, teacher) / len(student)

    def _distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The sum over the images."""
        positions = student.shape[2] * student.shape[3]
        if self.over == "map":
            directions = (1 - F.cosine_similarity(student.flatten(1), teacher.flatten(1), dim=1)).sum()
        else:
            directions = (1 - F.cosine_similarity(student, teacher, dim=1)).sum() / positions
        values = F.smooth_l1_loss(student, teacher, reduction="sum") / (student.shape[1] * positions)
        return self.cosine * directions + self.smooth_l1 * values
