"""What was gained: a sentence with its interval, and the table by seed."""

from __future__ import annotations

from statistics import mean

from limbeck.commands.report.parts import Part, Section, Table
from limbeck.commands.report.runs import Comparison, Way

WORDS = {"top1": "top-1 accuracy", "miou": "mean IoU", "box_ap": "box AP", "mask_ap": "mask AP"}


def verdict(comparison: Comparison) -> str:
    """The whole page in a sentence or two."""
    measured = [way for way in comparison.others if way.values]
    metric = WORDS.get(comparison.metric, comparison.metric)
    if not measured:
        return "No student of these runs was evaluated yet."
    best = max(measured, key=lambda way: mean(way.values.values()))
    reached = f"{best.name} has {100 * mean(best.values.values()):.2f} % {metric}"
    if comparison.teacher is not None:
        reached += f", its teacher {100 * comparison.teacher:.2f} %"
    if comparison.baseline is None:
        return f"{reached}. No run of the student alone is here to compare it with."
    gain = best.gain(comparison.baseline)
    if gain is None:
        return f"{reached}. No seed of it was also trained as {comparison.baseline.name}, so nothing is compared."
    points, half, pairs = gain
    name = comparison.baseline.name
    alone = "the student alone" if name == "alone" else f"the student alone ({name})"
    if half is None:
        return f"{reached}: {signed(points)} points against {alone}, on one seed, which has no interval."
    sure = "" if abs(points) > half else " These seeds do not tell the two apart."
    several = f" {best.name} is the best of {len(measured)} that are compared." if len(measured) > 1 else ""
    return (
        f"{reached}: {signed(points)} ± {half:.2f} points against {alone} (95 % interval, {pairs} seeds in pairs)."
        f"{sure}{several}"
    )


def signed(points: float) -> str:
    """With a sign, which is no hyphen, and none that is left of rounding.

    >>> signed(-0.001), signed(2)
    ('+0.00', '+2.00')
    """
    return f"{round(points, 2) + 0.0:+.2f}".replace("-", "\N{MINUS SIGN}")


def section(comparison: Comparison) -> Section:
    """The table by seed."""
    seeds = sorted({seed for way in comparison.ways for seed in way.values})
    head = ["", *(f"seed {seed}" for seed in seeds), "mean", "against alone"]
    rows = [_row(way, seeds, comparison.baseline) for way in comparison.ways if way.values]
    if comparison.teacher is not None:
        rows.append(["teacher", *[""] * len(seeds), f"{100 * comparison.teacher:.2f}", ""])
    metric = WORDS.get(comparison.metric, comparison.metric)
    about = (
        f"{metric[0].upper()}{metric[1:]} in per cent, of the last evaluation of each run. Differences are in points, "
        "paired by seed, with the 95 % interval of Student's t."
    )
    parts: list[Part] = [Table(head, rows)] if rows else []
    return Section("By seed", about, parts)


def _row(way: Way, seeds: list[int], baseline: Way | None) -> list[str]:
    values = way.values
    cells = [f"{100 * values[seed]:.2f}" if seed in values else "" for seed in seeds]
    gain = way.gain(baseline) if baseline is not None and way is not baseline else None
    against = "" if gain is None else signed(gain[0]) + ("" if gain[1] is None else f" ± {gain[1]:.2f}")
    return [way.name, *cells, f"{100 * mean(values.values()):.2f}", against]
