"""Knowledge review: deep student features help to follow the teacher's shallow ones. https://arxiv.org/abs/2104.09044"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.criteria.shared.maps import only_maps


class ReviewKD(nn.Module):
    """Fuse the student's features from the deepest to the first, and compare each with the teacher's at several scales.

    Takes tuples of layers, from the first to the deepest, as many of the student as of the teacher; a pooled feature
    (B, C, 1, 1) may be the last. The value is the sum over the layers of ``hierarchical_distance`` (Chen et al., arXiv
    2104.09044, and the authors' code, which reads the teacher's features before their activation, and warms the weight,
    0.6 to 8, up over 20 of 240 epochs: ``WarmUp(1.0, 1 / 12)``). The fusing modules are trained with the student and
    dropped afterwards.

    Args:
        width: Most channels inside the fusing modules.

    Shapes:
        student, teacher: tuples of maps (B, C_i, H_i, W_i); gives a scalar.

    Raises:
        ValueError: The numbers of layers differ.
    """

    any_shape = True
    fusions: nn.ModuleList

    def __init__(self, width: int = 512):
        super().__init__()
        self.width = width

    def build(self, student: tuple[Tensor, ...], teacher: tuple[Tensor, ...]) -> None:
        """Make a fusing module for each layer."""
        if isinstance(student, Tensor) or isinstance(teacher, Tensor) or len(student) != len(teacher):
            counts = [1 if isinstance(features, Tensor) else len(features) for features in (student, teacher)]
            raise ValueError(
                f"ReviewKD takes as many layers of the student as of the teacher, two or more, not {counts[0]} and "
                f"{counts[1]}: Match((layer, ...), (layer, ...), ReviewKD())"
            )
        only_maps(self, *student, *teacher)
        width = min(self.width, student[-1].shape[1])
        self.fusions = nn.ModuleList(
            Fusion(student_map.shape[1], width, teacher_map.shape[1], deepest=student_map is student[-1])
            for student_map, teacher_map in zip(student, teacher, strict=True)
        )

    def forward(self, student: tuple[Tensor, ...], teacher: tuple[Tensor, ...]) -> Tensor:
        deeper: Tensor | None = None
        total = student[0].new_zeros(())
        levels = zip(self.fusions, student, teacher, strict=True)
        for fusion, student_map, teacher_map in reversed(list(levels)):
            fused, deeper = fusion(student_map, deeper, teacher_map.shape[2:])
            total = total + hierarchical_distance(fused, teacher_map.detach())
        return total


class Fusion(nn.Module):
    """Weigh a feature against the fused deeper ones, position by position."""

    def __init__(self, channels: int, width: int, teacher: int, *, deepest: bool):
        super().__init__()
        self.take = nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width))
        self.give = nn.Sequential(nn.Conv2d(width, teacher, 3, padding=1, bias=False), nn.BatchNorm2d(teacher))
        for sequence in (self.take, self.give):
            nn.init.kaiming_uniform_(sequence.get_parameter("0.weight"), a=1)
        self.attend = None if deepest else nn.Conv2d(2 * width, 2, 1)

    def forward(self, feature: Tensor, deeper: Tensor | None, size: torch.Size) -> tuple[Tensor, Tensor]:
        """The feature as the teacher's of this height and width, and what the next shallower fusion takes."""
        fused = self.take(feature)
        if self.attend is not None:
            assert deeper is not None
            deeper = F.interpolate(deeper, fused.shape[2:], mode="nearest")
            own, others = self.attend(torch.cat([fused, deeper], 1)).sigmoid().split(1, dim=1)
            fused = fused * own + deeper * others
        if fused.shape[2:] != size:
            fused = F.interpolate(fused, size, mode="nearest")
        return self.give(fused), fused


def hierarchical_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared error at full size and pooled to 4x4, 2x2 and 1x1: a mean with weights 1, 1/2, 1/4, 1/8.

    Scales that are not smaller than the feature are left out.
    """
    total, weight, weights = F.mse_loss(student, teacher), 1.0, 1.0
    for size in (4, 2, 1):
        if size < student.shape[2]:
            weight /= 2
            pooled = [F.adaptive_avg_pool2d(feature, size) for feature in (student, teacher)]
            total, weights = total + weight * F.mse_loss(pooled[0], pooled[1]), weights + weight
    return total / weights
