"""Several ways to train one student, over seeds: mean, and difference to the first with a confidence interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from limbeck.models.run_folder import RunFolder, read_card
from limbeck.training.loop import train
from limbeck.training.options import RunOptions
from limbeck.training.recipe import Recipe


@dataclass(frozen=True)
class Arm:
    """One way to train, and what came of it: a number per seed, in the order of the seeds."""

    name: str
    values: list[float]

    def row(self, baseline: Arm) -> list[str]:
        """Name, values in per cent, mean, and paired difference to the baseline with its 95 % confidence interval."""
        percent = [100 * value for value in self.values]
        cells = [self.name, " ".join(f"{value:.2f}" for value in percent), f"{mean(percent):.2f}"]
        if self is baseline:
            return [*cells, ""]
        if len(percent) == 1:
            return [*cells, f"{percent[0] - 100 * baseline.values[0]:+.2f}, of one seed"]
        gain, half = difference(percent, [100 * value for value in baseline.values])
        return [*cells, f"{gain:+.2f} ± {half:.2f}"]


def difference(values: Sequence[float], baseline: Sequence[float]) -> tuple[float, float]:
    """Mean of the paired differences, and half the width of its 95 % confidence interval (Student's t, from scipy).

    >>> gain, half = difference([2.0, 3.0, 4.0], [1.0, 1.0, 1.0])
    >>> round(gain, 2), round(half, 2)
    (2.0, 2.48)
    """
    from scipy.stats import t  # type: ignore[import-untyped]

    gains = [value - base for value, base in zip(values, baseline, strict=True)]
    return mean(gains), float(t.ppf(0.975, len(gains) - 1)) * stdev(gains) / len(gains) ** 0.5


def compare(
    arms: Mapping[str, Callable[[int], Recipe]], seeds: Sequence[int], out: Path, *, metric: str = "top1"
) -> list[Arm]:
    """Train every arm with every seed into ``out/ARM-SEED``, quietly, and take the last student's metric.

    The last, not the best: a best of many evaluations would be chosen on the images that it is measured with. A run
    that is there already is taken, or resumed, so a comparison can be broken off and grow.

    Args:
        arms: By name, what makes a recipe for a seed; the first is the baseline.
    """
    results = []
    for name, make in arms.items():
        values = []
        for seed in seeds:
            run = RunFolder(out / f"{name}-{seed}")
            if not run.last_student.is_file():
                train(make(seed), run.path, RunOptions(resume=True), quiet=True)
            values.append(read_card(run.last_student)["metrics"][metric])
            print(f"{name}, seed {seed}: {metric} {values[-1]:.4f}", flush=True)
        results.append(Arm(name, values))
    return results


def table(arms: Sequence[Arm]) -> str:
    """The arms as a Markdown table."""
    head = ["", "by seed, %", "mean, %", "against the first, points, 95 % interval"]
    rows = [head, ["---"] * 4, *(arm.row(arms[0]) for arm in arms)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
