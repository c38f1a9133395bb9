"""What is done about images and annotations that cannot be used: the same for every task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
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
