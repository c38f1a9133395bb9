"""What the matches of a Distiller settle among themselves: names for all, and parts of one ratio."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch.distributed as dist

from limbeck.core.auto_weight import RATIO
from limbeck.core.features import names_of
from limbeck.core.match import Match


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
