"""What layers and their factors take on this machine, measured."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.compress.forms import Ranks, assemble, parts_of
from limbeck.compress.passes import on_device_of, watch
from limbeck.compress.ranks import Curve
from limbeck.compress.timing import timed
from limbeck.core.modules import Example, call, evaluating

MEASURED = 5  # candidates of a kind that are measured; those between are interpolated by what they multiply
CALLS = 9  # of which the fastest counts, which other work on the machine has disturbed least


@torch.no_grad()
def by_latency(
    model: nn.Module, example: Example, layers: Mapping[str, nn.Module], curves: Mapping[str, Curve]
) -> tuple[dict[str, Curve], float]:
    """Curves that count microseconds where they counted multiplications, and what the whole model takes.

    Args:
        model: It has the layers.
        example: What it is called with, the batch that counts.
        layers: By their paths.
        curves: What each may become, and what that multiplies.
    """
    inputs: dict[str, list[Tensor]] = {path: [] for path in layers}
    watch(model, {path: _keep(inputs[path]) for path in layers}, [example])
    known: dict[tuple[Any, ...], Tensor] = {}
    made = {}
    for path, layer in layers.items():
        x = inputs[path][0]
        alike = (repr(layer), x.shape, x.stride(), len(curves[path].ranks))  # layers of one kind take as long
        if alike not in known:
            known[alike] = _microseconds(layer, x, curves[path])
        made[path] = replace(curves[path], cost=known[alike] * len(inputs[path]))
    given = on_device_of(model, example)
    with evaluating(model):
        whole = 1e6 * _seconds(lambda: call(model, given))
    return made, max(whole, sum(curve.whole for curve in made.values()))


def _keep(seen: list[Tensor]) -> Callable[[Tensor, Tensor], None]:
    return lambda x, _: seen.append(x.clone(memory_format=torch.preserve_format))


def _microseconds(layer: nn.Module, x: Tensor, curve: Curve) -> Tensor:
    """What each candidate takes: the layer as it is, measured; of the others, those that stand for their kind."""
    microseconds = torch.empty(len(curve.ranks), dtype=torch.float64)
    kinds: dict[tuple[bool, bool], list[int]] = {}
    for index, (inner, outer) in enumerate(curve.ranks):
        kinds.setdefault((inner is None, outer is None), []).append(index)
    for indices in kinds.values():
        indices.sort(key=lambda index: float(curve.cost[index]))
        last = len(indices) - 1
        chosen = sorted({indices[round(last * step / (MEASURED - 1))] for step in range(MEASURED)}, key=indices.index)
        points = [float(curve.cost[index]) for index in chosen]
        values = [1e6 * _seconds_of(layer, curve.ranks[index], x) for index in chosen]
        for index in indices:
            microseconds[index] = interpolated(float(curve.cost[index]), points, values)
    return microseconds


def _seconds_of(layer: nn.Module, ranks: Ranks, x: Tensor) -> float:
    made = layer if ranks == (None, None) else assemble(parts_of(layer, ranks)).to(next(layer.parameters()))
    if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
        made = made.to(memory_format=torch.channels_last)
    return _seconds(lambda: made(x))


def _seconds(run: Callable[[], Any]) -> float:
    return min(timed(run) for _ in range(CALLS))


def interpolated(at: float, points: list[float], values: list[float]) -> float:
    """The value between the measured ones, linearly; beyond them the nearest.

    >>> interpolated(1.5, [1.0, 2.0], [10.0, 20.0]), interpolated(9.0, [1.0, 2.0], [10.0, 20.0])
    (15.0, 20.0)
    """
    right = bisect_right(points, at)
    if right in (0, len(points)):
        return values[min(right, len(points) - 1)]
    part = (at - points[right - 1]) / (points[right] - points[right - 1])
    return values[right - 1] + part * (values[right] - values[right - 1])
