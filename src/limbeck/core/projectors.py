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
from torch.nn.utils.parametrizations import orthogonal as orthogonal_parametrization

from limbeck.core.precision import exact

CONVOLUTION = {4: nn.Conv2d, 5: nn.Conv3d}  # by number of dimensions: of a map, and of a volume
LINEAR = {4: "bilinear", 5: "trilinear"}
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


def class_token(output: Any) -> Tensor:
    """Read the first of a vision transformer's tokens (B, N, D), its class token, as a map of one position."""
    tokens: Tensor = output if isinstance(output, Tensor) else first(output)
    return tokens[:, 0, :, None, None]


def channels_first(output: Tensor) -> Tensor:
    """Read a map that is kept as (B, H, W, C), as Swin transformers do, as (B, C, H, W)."""
    return output.permute(0, 3, 1, 2)


@dataclass(frozen=True)
class pooled:  # noqa: N801 - it is used as a function: Layer("layer4", read=pooled())
    """Read the mean over a map's positions, (B, C, 1, 1), as a classifier does.

    Args:
        read: How to read the map (B, C, H, W) first; ``None`` where the submodule returns it.
    """

    read: Callable[[Any], Tensor] | None = None

    def __call__(self, output: Any) -> Tensor:
        feature: Tensor = output if self.read is None else self.read(output)
        return feature.mean((2, 3), keepdim=True)


def fit_grid(student: Tensor, teacher: Tensor) -> Tensor:
    """Bring a student map (B, C, H, W) to the teacher's height and width: by area when it shrinks, else bilinearly.

    One of videos or volumes (B, C, D, H, W) likewise, with its depth.
    """
    size = teacher.shape[2:]
    if student.ndim not in LINEAR or student.ndim != teacher.ndim or student.shape[2:] == size:
        return student
    if all(wanted <= own for own, wanted in zip(student.shape[2:], size, strict=True)):
        return F.interpolate(student, size, mode="area")
    return F.interpolate(student, size, mode=LINEAR[student.ndim], align_corners=False)


def conv1x1(student: Tensor, teacher: Tensor) -> nn.Module:
    """Map the student's channels to the teacher's linearly: the regressor of FitNets, https://arxiv.org/abs/1412.6550.

    For maps (B, C, H, W) and volumes (B, C, D, H, W) a 1x1 convolution; for tokens (B, N, D) and vectors (B, D)
    the same map as a linear layer.
    """
    if student.ndim in CONVOLUTION:
        return CONVOLUTION[student.ndim](student.shape[1], teacher.shape[1], kernel_size=1)
    return nn.Linear(student.shape[-1], teacher.shape[-1])


def conv1x1_if_needed(student: Tensor, teacher: Tensor) -> nn.Module:
    """``conv1x1`` where the numbers of channels differ, nothing where they are equal."""
    channel = 1 if student.ndim in CONVOLUTION else -1
    return nn.Identity() if student.shape[channel] == teacher.shape[channel] else conv1x1(student, teacher)


def conv_bn(student: Tensor, teacher: Tensor) -> nn.Sequential:
    """A 1x1 convolution and batch norm, for maps (B, C, H, W), as before the margin ReLU of ``OFD``."""
    if student.ndim != 4:
        raise ValueError(
            f"batch norm projectors take maps (B, C, H, W), not {tuple(student.shape)}; use conv1x1, or read tokens as "
            "a map: Layer(..., read=tokens_to_map(...))"
        )
    channels = teacher.shape[1]
    return nn.Sequential(nn.Conv2d(student.shape[1], channels, 1, bias=False), nn.BatchNorm2d(channels))


def conv_bn_relu(student: Tensor, teacher: Tensor) -> nn.Sequential:
    """A 1x1 convolution, batch norm and ReLU, as FitNets and Channel Distillation have it in common code.

    For maps (B, C, H, W) that the teacher gives after a ReLU, since nothing below 0 can be followed.
    """
    return conv_bn(student, teacher).append(nn.ReLU())


def conv_bn_relu_if_positive(student: Tensor, teacher: Tensor) -> nn.Sequential:
    """``conv_bn_relu`` where nothing of the teacher's feature is below 0, as after a ReLU; elsewhere ``conv_bn``.

    What a ReLU gives cannot follow the negative values of a transformer, a ConvNeXt or a pyramid.
    """
    return (conv_bn if (teacher < 0).any() else conv_bn_relu)(student, teacher)


class orthogonal(nn.Module):  # noqa: N801 - a projector, as the functions above
    """A linear map whose matrix is kept orthogonal, so that it cannot learn in the student's place: VkD.

    https://arxiv.org/abs/2403.06213. For maps (B, C, H, W), tokens (B, N, D) and vectors (B, D), without a bias. The
    paper compares with the teacher's feature after a layer norm without weights, by smooth L1.
    """

    def __init__(self, student: Tensor, teacher: Tensor):
        super().__init__()
        self.channel = 1 if student.ndim in CONVOLUTION else -1
        linear = nn.Linear(student.shape[self.channel], teacher.shape[self.channel], bias=False)
        self.linear = orthogonal_parametrization(linear)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> orthogonal:
        # Under .to(bfloat16) it stays in float32: torch can keep no other matrix orthogonal.
        super()._apply(lambda tensor: exact(fn(tensor)), recurse)  # type: ignore[no-untyped-call]
        return self

    def forward(self, student: Tensor) -> Tensor:
        projected: Tensor = self.linear(student.movedim(self.channel, -1))
        return projected.movedim(-1, self.channel)
