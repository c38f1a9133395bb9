"""Names of matches, by which their losses are reported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from limbeck.core.match import Match, names_of


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
