"""What stands between a feature and its criterion: reads, the grid rule, and trained projectors.

A *read* makes one tensor of what a submodule returns, for ``Layer(path, read=...)``. A *projector* maps the student's
channels to the teacher's; ``Match(..., projector=conv1x1)`` builds it from one example of each feature.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isqrt
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

MakeProjector = Callable[[Tensor, Tensor], nn.Module]  # from one example of the student's and the teacher's feature


def first(output: Any) -> Tensor:
    """Read the first of several outputs: of a tuple, a list, or a mapping such as a ``ModelOutput``."""
    feature: Tensor = next(iter(output.values())) if hasattr(output, "values") else output[0]
    return feature


@dataclass(frozen=True)
class tokens_to_map:  # noqa: N801 - it is used as a function: Layer("norm", read=tokens_to_map(prefix=1))
    """Read a vision transformer's tokens (B, N, D) as a map (B, D, H, W).

    Args:
        prefix: Number of leading tokens that are no patches (class, register, distillation tokens).
        grid: Patches along height and width; ``None`` takes a square.
    """

    prefix: int = 0
    grid: tuple[int, int] | None = None

    def __call__(self, output: Any) -> Tensor:
        tokens: Tensor = output if isinstance(output, Tensor) else first(output)
        patches = tokens[:, self.prefix :]  # (B, H*W, D)
        count = patches.shape[1]
        height, width = self.grid or (isqrt(count), isqrt(count))
        if height * width != count:
            raise ValueError(
                f"{count} patch tokens ({tokens.shape[1]} less {self.prefix} prefix tokens) do not fill a "
                f"{height}x{width} grid; pass tokens_to_map(prefix=..., grid=(height, width))"
            )
        return patches.transpose(1, 2).reshape(len(patches), -1, height, width)


def channels_first(output: Tensor) -> Tensor:
    """Read a map that is kept as (B, H, W, C), as Swin transformers do, as (B, C, H, W)."""
    return output.permute(0, 3, 1, 2)


def fit_grid(student: Tensor, teacher: Tensor) -> Tensor:
    """Bring a student map (B, C, H, W) to the teacher's height and width: by area when it shrinks, else bilinearly."""
    if student.ndim != 4 or teacher.ndim != 4 or student.shape[-2:] == teacher.shape[-2:]:
        return student
    size = teacher.shape[-2:]
    if size[0] <= student.shape[-2] and size[1] <= student.shape[-1]:
        return F.interpolate(student, size, mode="area")
    return F.interpolate(student, size, mode="bilinear", align_corners=False)


def conv1x1(student: Tensor, teacher: Tensor) -> nn.Module:
    """Map the student's channels to the teacher's linearly: the regressor of FitNets, https://arxiv.org/abs/1412.6550.

    For maps (B, C, H, W) a 1x1 convolution, for tokens (B, N, D) and vectors (B, D) the same map as a linear layer.
    """
    if student.ndim == 4:
        return nn.Conv2d(student.shape[1], teacher.shape[1], kernel_size=1)
    return nn.Linear(student.shape[-1], teacher.shape[-1])
