"""What a tensor that a submodule gave is: a map, tokens, a vector, and how it is read as a map (B, C, H, W)."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from limbeck.core.capture import Layer
from limbeck.core.projectors import channels_first, tokens_to_map

Size = tuple[int, int]  # height and width


@dataclass(frozen=True)
class Found:
    """A submodule's output, as the submodules table shows it."""

    path: str
    kind: str  # "map", "map (H, W, C)", "tokens", "vector" or "other"
    tensor: Tensor
    version: int  # differs from the tensor's own once a later module has changed it in place
    module: nn.Module
    size: Size | None  # height and width, where it is spatial
    is_stage: bool = False  # the model itself names it as what one of its stages gives

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    @property
    def layer(self) -> Layer:
        """Where it is, with how to read it as a map (B, C, H, W) if it is spatial."""
        if self.kind == "map (H, W, C)":
            return Layer(self.path, channels_first)
        if self.kind == "tokens" and self.size is not None:
            height, width = self.size
            prefix = self.shape[1] - height * width
            return Layer(self.path, tokens_to_map(prefix, None if height == width else self.size))
        return Layer(self.path)


def image_size(example: Any) -> Size | None:
    """Height and width of the first image (..., 1, 3 or 4 channels, H, W) that a model is given; ``None`` without."""
    for leaf in tree_leaves(example):
        if isinstance(leaf, Tensor) and leaf.ndim >= 3 and leaf.shape[-3] in (1, 3, 4):
            return leaf.shape[-2], leaf.shape[-1]
    return None


def kind_and_size(output: Tensor, image: Size | None) -> tuple[str, Size | None]:
    """What a tensor is, judged by its shape, and its height and width.

    Args:
        output: Given by a submodule.
        image: Height and width of the image; ``None`` is taken for a square.
    """
    if output.ndim == 4:
        _, first, second, third = output.shape
        if _is_scaled((first, second), image) and not _is_scaled((second, third), image):
            return "map (H, W, C)", (first, second)
        return "map", (second, third)
    if output.ndim == 3:
        return "tokens", _grid_of_tokens(output.shape[1], image)
    return ("vector" if output.ndim == 2 else "other"), None


def _is_scaled(size: Size, image: Size | None) -> bool:
    """Whether a height and width have the proportions of an image, but for rounding where it is no square."""
    height, width = image or (1, 1)
    if height == width:
        return size[0] == size[1]
    return any(size in _scaled(height, width, stride) for stride in range(1, min(height, width) + 1))


def _scaled(height: int, width: int, stride: int) -> list[Size]:
    return [(height // stride, width // stride), (-(-height // stride), -(-width // stride))]


def _grid_of_tokens(count: int, image: Size | None) -> Size:
    """The largest grid of the image's proportions that so many tokens fill; those left over are the first."""
    height, width = image or (1, 1)
    if height == width:
        return isqrt(count), isqrt(count)
    grids = [grid for stride in range(1, max(height, width) + 1) for grid in _scaled(height, width, stride)]
    return max(
        (grid for grid in grids if grid[0] * grid[1] <= count), key=lambda grid: grid[0] * grid[1], default=(1, 1)
    )
