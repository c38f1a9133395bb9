"""Fold the batch norms of a frozen model into the convolutions before them."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.core.modules import Example, call

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@torch.no_grad()
def fold_norms(model: nn.Module, example: Example, keep: Collection[str] = ()) -> int:
    """Fold, in place, every batch norm whose input comes from one convolution and goes nowhere else.

    Which follows which is seen by running the example, so it holds for any ``forward``.

    Args:
        model: In eval mode.
        example: What to call it with.
        keep: Paths of convolutions whose own output is wanted.

    Returns:
        The number of norms folded.
    """
    paths = {module: path for path, module in model.named_modules()}
    pairs = [(conv, norm) for conv, norm in _pairs(model, example) if paths[conv] not in keep]
    for convolution, norm in pairs:
        _fold(convolution, norm)
        model.set_submodule(paths[norm], _without_norm(norm))
    return len(pairs)


def _pairs(model: nn.Module, example: Example) -> Iterator[tuple[nn.Module, nn.Module]]:
    """The (convolution, norm) pairs that ran once each, with a tensor between them that no other module saw."""
    runs: dict[nn.Module, int] = defaultdict(int)
    makers: dict[int, list[nn.Module]] = defaultdict(list)
    takers: dict[int, list[nn.Module]] = defaultdict(list)
    alive = []  # so that an id stays one tensor's

    def record(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        runs[module] += 1
        alive.append((args, kwargs, output))
        makers[id(output)].append(module)
        for value in (*args, *kwargs.values()):
            takers[id(value)].append(module)

    hooks = [module.register_forward_hook(record, with_kwargs=True) for module in model.modules()]
    call(model, example)
    for hook in hooks:
        hook.remove()
    for key, made in makers.items():
        taken = takers[key]
        if len(made) == len(taken) == 1 and runs[made[0]] == runs[taken[0]] == 1:
            convolution, norm = made[0], taken[0]
            if isinstance(convolution, CONVOLUTIONS) and _is_norm(norm):
                yield convolution, norm


def _is_norm(module: nn.Module) -> bool:
    statistics = (getattr(module, name, None) for name in ("running_mean", "running_var"))
    # timm's BatchNormAct2d holds what it does after the norm as children named drop and act.
    return all(isinstance(value, Tensor) for value in statistics) and set(_children(module)) in (set(), {"drop", "act"})


def _children(module: nn.Module) -> dict[str, nn.Module]:
    return dict(module.named_children())


def _without_norm(norm: nn.Module) -> nn.Module:
    children = _children(norm)
    if not children:
        return nn.Identity()
    rest = nn.Sequential()
    for name in ("drop", "act"):
        rest.add_module(name, children[name])
    return rest


def _fold(convolution: Any, norm: Any) -> None:
    """``norm(convolution(x)) == convolution'(x)``, computed in float64."""
    weight = convolution.weight.double()
    axes = [1] * (weight.ndim - 2)
    scale, shift = _line(norm, axes)
    if convolution.bias is not None:
        shift = shift + scale * convolution.bias.double()
    dtype = convolution.weight.dtype
    folded = weight * scale.view(-1, 1, *axes)
    convolution.weight = nn.Parameter(folded.to(dtype), requires_grad=False)
    convolution.bias = nn.Parameter(shift.to(dtype), requires_grad=False)


def _line(norm: Any, axes: list[int]) -> tuple[Tensor, Tensor]:
    """``norm(x) == scale * x + shift`` by channel, without what it does afterwards."""
    if not hasattr(norm, "eps"):  # transformers' frozen norms have it in their forward only
        exact = copy.deepcopy(norm).double()
        zero = exact.running_var.new_zeros(1, len(exact.running_var), *axes)
        shift = exact(zero).flatten()
        return exact(zero + 1).flatten() - shift, shift
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -norm.running_mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    return scale, shift
