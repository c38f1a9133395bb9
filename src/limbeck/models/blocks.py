"""The blocks of a plain transformer, whose features all have one size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from torch import nn

from limbeck.models.maps import Found


def blocks_of(model: nn.Module, surveyed: Sequence[Found], last: Found) -> list[Found]:
    """What the members of a sequence of modules give, each as large and wide as the last feature; none without one.

    Args:
        model: As it was surveyed.
        surveyed: What ``survey`` found.
        last: Its last spatial feature.
    """
    sequences: dict[str, list[Found]] = defaultdict(list)
    for found in surveyed:
        parent = found.path.rpartition(".")[0]
        if (
            _alike(found, last)
            and found.path
            and isinstance(model.get_submodule(parent), nn.Sequential | nn.ModuleList)
        ):
            sequences[parent].append(found)
    # The outermost: a block may hold sequences too.
    outermost = min(sequences, key=lambda path: (path.count("."), -len(sequences[path])), default=None)
    return [] if outermost is None else sequences[outermost]


def _alike(found: Found, last: Found) -> bool:
    channel = 1 if last.kind == "map" else -1
    return (found.kind, found.size) == (last.kind, last.size) and found.shape[channel] == last.shape[channel]
