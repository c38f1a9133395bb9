"""Fold the batch norms of a frozen model into the convolutions before them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from limbeck.core.capture import Layer
from limbeck.core.modules import Example
from limbeck.teacher.norms import scale_and_shift, without_norm
from limbeck.teacher.pairs import Pair, find_pairs


@torch.no_grad()
def fold_norms(model: nn.Module, example: Example, layers: Collection[Layer] = ()) -> list[Pair]:
    """Fold, in place, every batch norm whose input comes from one convolution and goes nowhere else.

    Which follows which is seen by running the example, so it holds for any ``forward``.

    Args:
        model: In eval mode.
        example: What to call it with.
        layers: Whose features are to stay as they are.

    Returns:
        The pairs found; those with an obstacle are left as they are.
    """
    paths: dict[nn.Module, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        paths.setdefault(module, []).append(path)
    pairs = find_pairs(model, example, layers)
    for pair in pairs:
        if not pair.obstacle:
            norm = pair.norm.module
            _fold(pair.convolution.module, norm)
            for path in paths[norm]:
                model.set_submodule(path, without_norm(norm))
            norm.register_forward_pre_hook(_refuse)
    return pairs


def _fold(convolution: Any, norm: nn.Module) -> None:
    """``norm(convolution(x)) == convolution'(x)``, computed in float64."""
    weight, bias = convolution.weight, convolution.bias
    dimensions = weight.ndim - 2
    scale, shift = scale_and_shift(norm, dimensions)
    if bias is not None:
        shift = shift + scale * bias.double()
    folded = weight.double() * scale.view(-1, 1, *[1] * dimensions)
    convolution.weight = nn.Parameter(folded.to(weight.dtype), requires_grad=False)
    convolution.bias = nn.Parameter(shift.to(weight.dtype), requires_grad=False)


def _refuse(norm: nn.Module, args: Any) -> None:
    raise RuntimeError(f"a {type(norm).__name__} that was folded is run from where it is not registered, as a list")
