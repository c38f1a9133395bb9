"""The stages of a model that names them itself, as every timm model does by ``forward_intermediates``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.core.modules import evaluating
from limbeck.core.projectors import channels_first, tokens_to_map
from limbeck.core.trace import Call
from limbeck.models.maps import Found, Size


@torch.no_grad()
def mark_stages(found: Sequence[Found], calls: Sequence[Call]) -> list[Found]:
    """Mark, among what a model's submodules gave, what the model itself says that its stages give.

    Which submodule gives it is seen by its values, and so is how it is read: where tokens have others before them, or
    channels come last. The stages before one that no submodule gives are not marked.

    Args:
        found: Of one forward pass in eval mode.
        calls: Of the same pass.
    """
    marked = list(found)
    for call in calls:
        if names_stages(call.module) and not any(_holds(other, call) for other in calls):
            for same_stage in reversed(_stages_of(call)):
                places = next(filter(None, (_places(found, feature) for feature in same_stage)), None)
                if places is None:
                    break
                place = _outermost(found, list(places))
                marked[place] = places[place]
    return marked


def _places(found: Sequence[Found], feature: Tensor) -> dict[int, Found]:
    """Where a map (B, C, H, W) was given by a submodule that ran once, and how it is read there."""
    runs = Counter(each.path for each in found)
    stages = {place: _as_stage(each, feature) for place, each in enumerate(found) if runs[each.path] == 1}
    return {place: stage for place, stage in stages.items() if stage}


def _outermost(found: Sequence[Found], places: list[int]) -> int:
    """Of submodules that give the same, the outermost; of those with equal but different tensors, the last."""
    first = {id(found[place].tensor): place for place in reversed(places)}
    return min(places, key=lambda place: (found[place].path.count("."), -first[id(found[place].tensor)]))


def names_stages(module: nn.Module) -> bool:
    """Whether a module can say itself what its stages give."""
    return hasattr(module, "forward_intermediates")


def _holds(other: Call, call: Call) -> bool:
    """Whether another call is of a module around this one that names its stages too."""
    inside = not other.path or call.path.startswith(f"{other.path}.")
    return other is not call and inside and names_stages(other.module)


def _stages_of(call: Call) -> list[list[Tensor]]:
    """The last map (B, C, H, W) of each size; at the last size, before it what the head takes, if it has this size."""
    with evaluating(call.module):
        final, maps = call.module.forward_intermediates(*call.args, **call.kwargs)  # type: ignore[operator]
    by_size: dict[Size, list[Tensor]] = {}
    for feature in maps:
        size = (feature.shape[2], feature.shape[3])
        by_size.pop(size, None)  # the order is that of the last ones
        by_size[size] = [feature]
    by_size[size] = [*(feature for _, feature in _readings(final, size)), *by_size[size]]
    return list(by_size.values())


def _readings(value: Any, size: Size) -> Iterator[tuple[str, Tensor]]:
    """The maps (B, C, H, W) of a height and width that a tensor can be read as, with the kind it then is."""
    if not isinstance(value, Tensor):
        return
    if value.ndim == 4 and value.shape[2:] == size:
        yield "map", value
    if value.ndim == 4 and value.shape[1:3] == size:
        yield "map (H, W, C)", channels_first(value)
    if value.ndim == 3 and (prefix := value.shape[1] - size[0] * size[1]) >= 0:
        yield "tokens", tokens_to_map(prefix, size)(value)


def _as_stage(found: Found, feature: Tensor) -> Found | None:
    """What was found, read as a map (B, C, H, W), if that is this one and stays so."""
    if found.tensor._version != found.version:
        return None
    size = (feature.shape[2], feature.shape[3])
    for kind, read in _readings(found.tensor, size):
        if torch.equal(read, feature):
            return replace(found, kind=kind, size=size, is_stage=True)
    return None
