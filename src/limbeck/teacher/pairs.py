"""Which batch norms of a frozen model can be folded into the convolutions before them, seen by running it once."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.core.capture import Layer
from limbeck.core.modules import Example
from limbeck.core.trace import Call, trace
from limbeck.teacher.norms import is_norm, scale_and_shift, without_norm
from limbeck.teacher.operations import Operations, tensors_in

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Pair:
    """A convolution that ran once, and a batch norm that ran once and alone took what it gave."""

    convolution: Call
    norm: Call
    obstacle: str = ""  # why the norm cannot be folded all the same

    @property
    def between(self) -> Tensor:
        """What the one gave and the other took."""
        tensor: Tensor = self.convolution.output
        return tensor


@torch.no_grad()
def find_pairs(model: nn.Module, example: Example, layers: Collection[Layer] = ()) -> list[Pair]:
    """The convolutions and batch norms of a model that could be one.

    Args:
        model: In eval mode.
        example: What to call it with.
        layers: Whose features are wanted, so that a norm stays where one of these reads what it takes.
    """
    with Operations() as operations:
        calls = trace(model, example).calls
    read = {(layer.path, layer.input) for layer in layers}
    pairs = []
    for pair in _neighbours(calls):
        if not read & {(pair.convolution.path, False), (pair.norm.path, True)}:
            with Operations() as alone:
                normalised = pair.norm.module(pair.between)
            if not _taken_elsewhere(pair.between, operations, alone):  # by a function, which is no module
                pairs.append(replace(pair, obstacle=_obstacle(pair, normalised, operations, alone)))
    return pairs


def _neighbours(calls: list[Call]) -> list[Pair]:
    """The pairs with a tensor between them that no other module gave or took."""
    runs = Counter(call.module for call in calls)
    makers: dict[int, list[Call]] = defaultdict(list)
    takers: dict[int, list[Call]] = defaultdict(list)
    for call in calls:
        for tensor in tensors_in(call.output):
            makers[id(tensor)].append(call)
        for tensor in tensors_in((call.args, call.kwargs)):
            takers[id(tensor)].append(call)
    return [
        Pair(made[0], takers[key][0])
        for key, made in makers.items()
        if len(made) == len(takers[key]) == 1
        and isinstance(made[0].module, CONVOLUTIONS)
        and is_norm(takers[key][0].module)
        and runs[made[0].module] == runs[takers[key][0].module] == 1
    ]


def _obstacle(pair: Pair, normalised: Tensor, operations: Operations, alone: Operations) -> str:
    convolution, norm = pair.convolution.module, pair.norm.module
    own = dict(convolution.named_parameters(recurse=False))
    uses = [[operation.name for operation in operations.on(tensor)] for tensor in own.values()]
    if "weight" not in own or any(names != ["aten::convolution"] for names in uses):
        return f"the weight of {pair.convolution.path} is computed from others, or something else reads it"
    if any(module._forward_hooks or module._forward_pre_hooks for module in (convolution, norm)):
        return f"hooks are registered on it or on {pair.convolution.path}"
    if any(_taken_elsewhere(tensor, operations, alone) for tensor in (*norm.parameters(), *norm.buffers())):
        return "something else reads its weights"
    if not _is_scale_and_shift(pair, normalised):
        return "it gives something else than its statistics say"
    return ""


def _taken_elsewhere(tensor: Tensor, operations: Operations, alone: Operations) -> bool:
    """Whether the model takes a tensor more often than its norm alone does."""
    return len(operations.on(tensor)) > len(alone.on(tensor))


def _is_scale_and_shift(pair: Pair, normalised: Tensor) -> bool:
    """Whether the norm does, channel by channel, what folding takes it to do."""
    norm: Any = pair.norm.module
    x = pair.between
    if pair.convolution.versions_after[id(x)] != x._version or x.ndim < 3:
        return False  # it changed what it took, or there is no batch
    shape = (1, -1, *[1] * (x.ndim - 2))
    scale, shift = (value.view(shape) for value in scale_and_shift(norm, x.ndim - 2))
    expected = without_norm(norm)((scale * x.double() + shift).to(x.dtype))
    mean = norm.running_mean.double().view(shape)
    largest = scale.abs() * (x.abs().amax((0, *range(2, x.ndim)), keepdim=True) + mean.abs()) + shift.abs()
    return bool(((normalised - expected).abs() <= 64 * torch.finfo(x.dtype).eps * largest).all())
