"""The table of benchmarks/robustness.py, and the figures above it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from limbeck.training.compare import difference


@dataclass(frozen=True)
class Outcome:
    """What a run came to."""

    value: float  # the last student's metric, 0 where it diverged
    diverged: str = ""  # the error

    def __str__(self) -> str:
        return f"{100 * self.value:.1f}{'*' if self.diverged else ''}"


@dataclass(frozen=True)
class Row:
    """A cell by one method, over seeds."""

    cell: str
    method: str
    teacher: Outcome
    alone: list[Outcome]
    distilled: list[Outcome]

    @property
    def gain(self) -> tuple[float, float]:
        """Points against alone, paired by seed, and half the width of the 95 % interval; infinite for one seed."""
        values, baseline = ([100 * each.value for each in arm] for arm in (self.distilled, self.alone))
        if len(values) == 1:
            return values[0] - baseline[0], float("inf")
        return difference(values, baseline)

    def line(self) -> str:
        gain, half = self.gain
        arms = [" ".join(map(str, arm)) for arm in (self.alone, self.distilled)]
        return f"| {self.cell} | {self.method} | {self.teacher} | {' | '.join(arms)} | {gain:+.1f} ± {half:.1f} |"


def report(rows: Sequence[Row]) -> str:
    """The headline figures of each method, and a Markdown table of all rows; a run with an asterisk diverged."""
    methods = list(dict.fromkeys(row.method for row in rows))
    lines = [headline(method, [row for row in rows if row.method == method]) for method in methods]
    head = "| data, pair, optimizer | method | teacher | alone | distilled | against alone, points, 95 % interval |"
    return "\n".join([*lines, "", head, "|---|---|---|---|---|---|", *(row.line() for row in rows)])


def headline(method: str, rows: Sequence[Row]) -> str:
    """How many runs diverged, and in how many cells the mean is better than alone's, or surely better or worse."""
    gains = [row.gain for row in rows]
    diverged = sum(bool(each.diverged) for row in rows for each in row.distilled)
    alone = sum(bool(each.diverged) for row in rows for each in row.alone)
    runs = sum(len(row.distilled) for row in rows)
    taught = [row.gain[0] for row in rows if row.teacher.value > mean(each.value for each in row.alone)]
    return (
        f"{method}, {len(rows)} cells: {diverged} of {runs} runs diverged (alone {alone}); better than alone in "
        f"{sum(gain > 0 for gain, _ in gains)} cells ({sum(gain > 0 for gain, _ in gains) / len(rows):.0%}), beyond "
        f"the interval in {sum(gain > half for gain, half in gains)}; worse beyond it in "
        f"{sum(-gain > half for gain, half in gains)}; {mean(gain for gain, _ in gains):+.1f} points on average; "
        f"better in {sum(gain > 0 for gain in taught)} of the {len(taught)} cells whose teacher is better than alone"
    )
