"""Focal and global distillation for detectors: objects, background and relations apart. https://arxiv.org/abs/2111.11837"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from limbeck.core.precision import as_weights, exact
from limbeck.criteria.shared.attention import over_channels, over_positions
from limbeck.criteria.shared.boxes import cells_of, check_boxes
from limbeck.criteria.shared.maps import as_maps, only_maps
from limbeck.criteria.shared.one_pass import sum_of_pieces


class FGD(nn.Module):
    """Squared L2 distance weighed by the teacher's attention and by the boxes, and L1 distance of the attentions.

    ``(sum((foreground * M_fg + background * M_bg) * A * (student - teacher)**2) + attention * sum(|A(student) -
    A(teacher)|) + relation * sum((G_s(student) - G_t(teacher))**2)) / B`` for one level of an FPN. ``A`` is the
    teacher's attention over positions times that over channels; ``M_fg`` is one over a box's cells inside it (the
    largest where boxes overlap), ``M_bg`` one over the number of other cells outside all; ``G`` are two blocks of
    global context, trained with the student and dropped afterwards. Follows the authors' code (Yang et al., arXiv
    2111.11837).

    Args:
        foreground, background, attention, relation: The paper's alpha, beta, gamma and lambda, for RetinaNet; 1.6
            times them for FCOS and RepPoints; for two-stage detectors 5e-5, 2.5e-5, 5e-5 and 5e-7, which is a twentieth
            of the first two and a tenth of the last two.
        temperature: Of the attention; 0.8 for FCOS.

    Shapes:
        student, teacher: maps (B, C, H, W); truth: for each image boxes (n, 4), as left, top, right, bottom in
        fractions of the image that the model sees. Gives a scalar.

    Raises:
        ValueError: The truth is not boxes for each image.
    """

    mixed_precision = True  # its slices are computed in float32
    needs_truth = "the boxes of each image"
    student_context: nn.Module
    teacher_context: nn.Module

    def __init__(
        self,
        foreground: float = 1e-3,
        background: float = 5e-4,
        attention: float = 5e-4,
        relation: float = 5e-6,
        temperature: float = 0.5,
    ):
        super().__init__()
        self.foreground, self.background = foreground, background
        self.attention, self.relation = attention, relation
        self.temperature = temperature

    def build(self, student: Tensor, teacher: Tensor) -> None:
        """Make the two blocks of global context for features like these."""
        only_maps(self, student, teacher)
        as_maps(self, student, teacher)
        self.student_context = GlobalContext(teacher.shape[1])
        self.teacher_context = GlobalContext(teacher.shape[1])

    def forward(self, student: Tensor, teacher: Tensor, truth: Any) -> Tensor:
        student, teacher = as_maps(self, student, teacher)
        check_boxes(self, truth, len(student))
        where = exact(student[:0])  # device and precision, in which the boxes' edges are found
        weights = torch.stack([self._weigh(boxes.to(where), *student.shape[2:]) for boxes in truth])
        own = list(self.parameters())
        return sum_of_pieces(self._distance, student, teacher, weights, weights=own) / len(student)

    def _weigh(self, boxes: Tensor, height: int, width: int) -> Tensor:
        """The weight of every cell, (1, H, W), from one image's boxes (n, 4)."""
        inside = cells_of(boxes, height, width)
        outside = (inside == 0).to(inside)
        return (self.foreground * inside + self.background * outside / outside.sum().clamp(min=1))[None]

    def _distance(self, student: Tensor, teacher: Tensor, weights: Tensor) -> Tensor:
        student_attention, teacher_attention = (
            [over(feature, self.temperature) for over in (over_positions, over_channels)]
            for feature in (student, teacher)
        )
        focal = (weights * teacher_attention[0] * teacher_attention[1] * (student - teacher).square()).sum()
        attention = sum((a - b).abs().sum() for a, b in zip(student_attention, teacher_attention, strict=True))
        student, teacher = as_weights(student, self), as_weights(teacher, self)
        relation = exact(self.student_context(student) - self.teacher_context(teacher)).square().sum()
        total: Tensor = focal + self.attention * attention + self.relation * relation
        return total


class GlobalContext(nn.Module):
    """Add to every position what a channel-wise network makes of an attended mean of all (GCNet, arXiv 1904.11492)."""

    def __init__(self, channels: int):
        super().__init__()
        self.attend = nn.Conv2d(channels, 1, 1)
        nn.init.kaiming_normal_(self.attend.weight, mode="fan_in")
        self.transform = nn.Sequential(
            nn.Conv2d(channels, channels // 2, 1),
            nn.LayerNorm([channels // 2, 1, 1]),
            nn.ReLU(),
            nn.Conv2d(channels // 2, channels, 1),
        )
        for parameter in self.transform[-1].parameters():
            nn.init.zeros_(parameter)  # at first nothing is added

    def forward(self, feature: Tensor) -> Tensor:
        attention = self.attend(feature).flatten(1).softmax(1)
        context = torch.einsum("bcp,bp->bc", feature.flatten(2), attention)
        added: Tensor = self.transform(context[:, :, None, None])
        return feature + added
