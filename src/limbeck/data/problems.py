"""What is done about images and annotations that cannot be used: the same for every task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple

OnBadData = Literal["error", "skip"]


class Problem(NamedTuple):
    """Why an image or an annotation cannot be used."""

    kind: str  # which are counted together
    what: str


def left_out(problems: Sequence[Problem], on_bad: OnBadData, *, of: object, some_left: bool = True) -> list[str]:
    """What is to be said of the problems, which are left out.

    Args:
        problems: All that were found.
        on_bad: Whether they may be left out.
        of: The file or folder that was read.
        some_left: Whether there is anything beside them.

    Raises:
        ValueError: The first problem, where they may not be left out or nothing is left.
    """
    if problems and (on_bad == "error" or not some_left):
        remedy = "mend the data" + (", or pass --on-bad-data skip to leave out what is wrong" if some_left else "")
        raise ValueError(f"{of}: {problems[0].what} (problems found: {len(problems)}); {remedy}")
    first = {problem.kind: problem.what for problem in reversed(problems)}
    counts = Counter(problem.kind for problem in problems)
    return [f"{of}: left out {count} {kind}, the first: {first[kind]}" for kind, count in counts.items()]


def first_few(names: Sequence[str]) -> str:
    """The first three names, and whether there are more."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def absent_of(classes: Sequence[str], there: Collection[int]) -> str:
    """How many classes are not among those that are there, by number, and the first of them; empty where all are."""
    absent = [name for index, name in enumerate(classes) if index not in there]
    return f"{len(absent)} of the {len(classes)} classes: {first_few(absent)}" if absent else ""
