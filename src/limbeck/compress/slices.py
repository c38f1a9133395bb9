"""The slices of a network that are trained each by itself: blocks, or single layers."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from torch import nn

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)  # hold blocks, and are none


def slices_of(model: nn.Module, layers: Sequence[str], by: str = "blocks") -> list[str]:
    """The paths of the slices that hold all of some layers, none within another, in the order of their first layers.

    Args:
        model: Of which they are slices.
        layers: Paths of the layers that were factorised.
        by: ``blocks``, where a block is the innermost module around a layer that is no mere container (such as a
            residual block, or an MLP of a transformer), or the layer itself where that module holds more than half of
            the layers; or ``layers``.

    >>> from torchvision.models import resnet18
    >>> slices_of(resnet18(), ["conv1", "layer1.0.conv1", "layer1.0.conv2", "layer1.1.conv1"])
    ['conv1', 'layer1.0', 'layer1.1']
    """
    if by == "layers":
        return list(layers)
    if by != "blocks":
        raise ValueError(f"slices are blocks or layers, not {by!r}")
    found = list(dict.fromkeys(_block_around(model, path, layers) for path in layers))
    return [path for path in found if not any(path.startswith(f"{other}.") for other in found)]


def check_slices(model: nn.Module, slices: Collection[str], layers: Collection[str]) -> None:
    """Refuse slices that are not there, lie within each other, or leave no layer to train."""
    for path in slices:
        model.get_submodule(path)
        if around := [other for other in slices if path.startswith(f"{other}.")]:
            raise ValueError(f"the slice {path} lies within the slice {around[0]}: name one of them")
        if not any(f"{layer}.".startswith(f"{path}.") for layer in layers):
            raise ValueError(f"the slice {path} holds no layer that was factorised")


def _block_around(model: nn.Module, path: str, layers: Sequence[str]) -> str:
    parent = path.rpartition(".")[0]
    while parent and type(model.get_submodule(parent)) in CONTAINERS:
        parent = parent.rpartition(".")[0]
    inside = [each for each in layers if each.startswith(f"{parent}.")]
    return parent if parent and len(inside) <= max(1, len(layers) / 2) else path


def share_out(costs: Sequence[float], processes: int) -> list[list[int]]:
    """Which slices each process trains: consecutive ones, so that the original runs no further than to the last.

    The original's forward pass costs a third of a slice's training; the largest sum of any process is least.

    >>> share_out([1.0, 1.0, 1.0, 1.0], 2)
    [[0, 1], [2, 3]]
    """
    bounds = _bounds(costs, processes)
    return [list(range(start, end)) for start, end in zip([0, *bounds[:-1]], bounds, strict=True)]


FORWARD = 1 / 3  # of the cost of a slice's training, which has a forward and a backward pass


def _bounds(costs: Sequence[float], processes: int) -> list[int]:
    """Where each process's slices end, the latest for the least time of the slowest process, found by bisection."""
    total = sum(costs)
    low, high = 0.0, total * (1 + FORWARD)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if _ends(costs, processes, middle)[-1] == len(costs) else (middle, high)
    return _ends(costs, processes, high)


def _ends(costs: Sequence[float], processes: int, most: float) -> list[int]:
    ends, index, before = [], 0, 0.0
    for _ in range(processes):
        spent = 0.0
        while index < len(costs) and spent + costs[index] + FORWARD * (before + costs[index]) <= most:
            spent, before = spent + costs[index], before + costs[index]
            index += 1
        ends.append(index)
    return ends
