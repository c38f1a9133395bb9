"""Masked generative distillation: make the teacher's feature from a part of the student's. https://arxiv.org/abs/2205.01529"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from limbeck.core.precision import as_weights
from limbeck.criteria.shared.maps import as_maps, only_maps
from limbeck.criteria.shared.one_pass import sum_of_pieces


class MGD(nn.Module):
    """Squared L2 distance between the teacher's feature and one generated from the student's, a part of it masked.

    ``sum((generator(mask * student) - teacher)**2) / B``, over masked and other positions alike; the generator is two
    3x3 convolutions with a ReLU between, trained with the student and dropped afterwards. The mask is drawn anew in
    each training step; in eval mode nothing is masked. Follows the authors' code (Yang et al., arXiv 2205.01529).

    Args:
        masked: Share that is masked, the paper's lambda: 0.15 in classification; 0.65 for RetinaNet, 0.45 for two-stage
            detectors, 0.75 in segmentation.
        over: What is masked: ``"channels"``, as the authors do in classification, or ``"positions"``, as they do in
            detection and segmentation.

    Shapes:
        student, teacher: maps (B, C, H, W); the authors bring other channels to the teacher's by a 1x1 convolution.
        Gives a scalar.
    """

    mixed_precision = True  # its slices are computed in float32
    generator: nn.Sequential

    def __init__(self, masked: float = 0.15, over: Literal["channels", "positions"] = "channels"):
        super().__init__()
        if not 0 <= masked < 1:
            raise ValueError(f"masked is {masked}; it is a share from 0 up to, but not, 1")
        if over not in ("channels", "positions"):
            raise ValueError(f"over is {over!r}; it is 'channels' or 'positions'")
        self.masked, self.over = masked, over

    def build(self, student: Tensor, teacher: Tensor) -> None:
        """Make the generator for features like these."""
        only_maps(self, student, teacher)
        as_maps(self, student, teacher)
        channels = teacher.shape[1]
        self.generator = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)
        )

    def project(self, student: Tensor) -> Tensor:
        """The teacher's feature, generated from all of the student's."""
        made: Tensor = self.generator(as_weights(student, self.generator))
        return made

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        student, teacher = as_maps(self, student, teacher)
        batch, channels, height, width = student.shape
        shape = (batch, channels, 1, 1) if self.over == "channels" else (batch, 1, height, width)
        kept = torch.ones(shape, dtype=student.dtype, device=student.device)
        if self.training:
            kept = (torch.rand(shape, device=student.device) >= self.masked).to(student.dtype)
        return sum_of_pieces(self._distance, student, teacher, kept, weights=list(self.parameters())) / batch

    def _distance(self, student: Tensor, teacher: Tensor, kept: Tensor) -> Tensor:
        difference: Tensor = self.generator(as_weights(student * kept, self.generator)) - teacher
        return difference.square().sum()
