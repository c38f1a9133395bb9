"""A batch norm in eval mode: a scale and a shift for each channel, and what some do after it."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn


def is_norm(module: nn.Module) -> bool:
    """Whether it has running statistics, and nothing inside but what timm's norms do after the norm."""
    statistics = (getattr(module, name, None) for name in ("running_mean", "running_var"))
    return all(isinstance(value, Tensor) for value in statistics) and {*_children(module)} in (set(), {"drop", "act"})


def without_norm(norm: nn.Module) -> nn.Module:
    """What a norm does after it has normalised."""
    children = _children(norm)
    if not children:
        return nn.Identity()
    rest = nn.Sequential()
    for name in ("drop", "act"):
        rest.add_module(name, children[name])
    return rest


def scale_and_shift(norm: Any, dimensions: int) -> tuple[Tensor, Tensor]:
    """``norm(x) == scale * x + shift`` for each channel (C,), in float64, but for what it does afterwards.

    Args:
        norm: With running statistics.
        dimensions: Of x after batch and channels: 2 for a map (B, C, H, W).
    """
    if not hasattr(norm, "eps"):  # transformers' frozen norms have it in their forward only
        exact = copy.deepcopy(norm).double()
        zero = exact.running_var.new_zeros(1, len(exact.running_var), *[1] * dimensions)
        shift = exact(zero).flatten()
        return exact(zero + 1).flatten() - shift, shift
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -norm.running_mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    return scale, shift


def _children(module: nn.Module) -> dict[str, nn.Module]:
    return dict(module.named_children())
