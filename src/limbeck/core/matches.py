"""What the matches of a Distiller settle among themselves: names for all, and parts of one ratio."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch.distributed as dist

from limbeck.core.auto_weight import RATIO
from limbeck.core.features import names_of
from limbeck.core.match import Match


def check_matches(matches: Any) -> list[Match]:
    """The matches as a list; ``TypeError`` for what is none, ``ValueError`` where one is there twice or none is."""
    if isinstance(matches, Match):
        raise TypeError("matches is a single Match; pass a list: Distiller(student, teacher, [match], ...)")
    if isinstance(matches, str | Mapping) or not isinstance(matches, Iterable):
        raise TypeError(f"matches is a {type(matches).__name__}; pass a list: [Match(layer, layer, criterion), ...]")
    listed = list(matches)
    if not listed:
        raise ValueError("no matches: the student would be trained alone")
    for match in listed:
        if not isinstance(match, Match):
            raise TypeError(f"{match!r:.60} is no Match; pass [Match(layer, layer, criterion), ...]")
        if sum(match is other for other in listed) > 1:
            raise ValueError(f"one and the same Match, {match}, is there twice; leave one out, or make two")
    return listed


def tell_apart(matches: Sequence[Match]) -> None:
    """Name matches whose names are the same by the teacher's layer too, and where that does not help by a number.

    Raises:
        ValueError: Two were given the same name.
    """
    given = [match.name for match in matches if match.name is not None]
    if len(set(given)) < len(given):
        raise ValueError(f"two matches were given one name, so one loss would hide the other: {given}")
    for match in _of_one_name(matches):
        match.name = f"{match}->{names_of(match.teacher)}"
    for number, match in enumerate(_of_one_name(matches), 1):
        match.name = f"{match}#{number}"


def _of_one_name(matches: Sequence[Match]) -> list[Match]:
    counts = Counter(map(str, matches))
    return [match for match in matches if counts[str(match)] > 1]


def share_ratio(matches: Sequence[Match], process_group: dist.ProcessGroup | None) -> None:
    """Give each match of weight ``"auto"`` its part of one ratio to the task's gradient.

    The modules at which they read have equal parts. Matches of one feature divide the part of their module; those of
    several features that one module returns, as the levels of a pyramid, do not, since each has a gradient of its own.
    """
    modules = {tuple((layer.path, layer.input) for layer in match.student) for match in matches}
    features = Counter(match.student for match in matches)
    for match in matches:
        assert match.auto is not None
        match.auto.share = RATIO / len(modules) / features[match.student]
        if process_group is not None:  # in a function, since a group cannot be deep-copied
            match.auto.reduce = lambda sums: dist.all_reduce(sums, group=process_group)
