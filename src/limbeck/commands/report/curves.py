"""How the training went: metric, losses, share of the distillation, weights, learning rate."""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean
from typing import Any

from limbeck.commands.report.charts import Rows, coloured, lines
from limbeck.commands.report.parts import Chart, Legend, Part, Section
from limbeck.commands.report.runs import Comparison, Entry, Run, Way
from limbeck.commands.report.verdict import WORDS
from limbeck.training.compare import difference

POINTS = 150  # of a line, at most

Value = Callable[[Run, Entry], float | None]


def section(comparison: Comparison) -> Section:
    """All curves, a line a run."""
    colours = coloured([way.name for way in comparison.ways], has_baseline=comparison.baseline is not None)
    metric = comparison.metric
    named = WORDS.get(metric, metric)
    wanted: list[tuple[str, str, str, Value, str, float | None]] = [
        ("val", named, named, lambda _, entry: entry.get(metric), "%", comparison.teacher),
        ("val", "Validation loss", "loss", lambda _, entry: entry.get("loss"), "", None),
        ("train", "Task loss", "loss", lambda _, entry: entry.get("task"), "", None),
        ("train", "Distillation loss", "weighted sum", distillation, "", None),
        ("train", "Share of the distillation", "of the whole loss", share, "%", None),
        ("train", "Learning rate", "learning rate", lambda _, entry: entry.get("learning_rate"), "", None),
    ]
    parts: list[Part] = [Legend(colours)] if len(colours) > 1 else []
    for kind, title, axis, value, form, rule in wanted:
        if rows := [row for way in comparison.ways for row in rows_of(way, kind, value)]:
            note = "Dashed: the teacher." if rule is not None else ""
            parts.append(Chart(title[0].upper() + title[1:], lines(rows, colours, axis, form=form, rule=rule), note))
    parts += _weights(comparison)
    about = (
        "Each run is a thin line, the mean over seeds a thick one in its 95 % interval (Student's t, where there are "
        "two seeds or more). Losses are means over the steps between two lines of the log, weighted as they were added."
    )
    if not any(isinstance(part, Chart) for part in parts):
        return Section("Curves", "No step was logged yet.")
    return Section("Curves", about, parts)


def distillation(run: Run, entry: Entry) -> float | None:
    """The sum of the losses of the matches."""
    return sum(entry.get(name, 0.0) for name in run.losses) if run.losses else None


def share(run: Run, entry: Entry) -> float | None:
    """What part of the whole loss the matches have."""
    total = distillation(run, entry)
    if total is None or not entry.get("task", 0.0) + total:
        return None
    whole: float = entry["task"] + total
    return total / whole


def _weights(comparison: Comparison) -> list[Part]:
    """The weights as they went, a chart each way, a line each match."""
    parts: list[Part] = []
    for way in comparison.ways:
        matches = list(dict.fromkeys(name for run in way.runs for name in run.losses))
        rows = [
            row
            for match in matches
            for row in rows_of(way, "weights", lambda _, entry, match=match: entry.get(match), match)  # type: ignore[misc]
        ]
        if rows:
            colours = coloured(matches, has_baseline=False)
            title = f"Weight, {way.name}" if len(comparison.others) > 1 else "Weight of the criterion"
            parts += [Chart(title, lines(rows, colours, "weight"), ", ".join(matches))]
    return parts


def rows_of(way: Way, kind: str, value: Value, name: str = "") -> Rows:
    """The points of a way's runs, and of their mean where several have the same steps."""
    rows: Rows = []
    by_step: dict[int, list[float]] = {}
    for run in way.runs:
        found = [(entry["step"], value(run, entry)) for entry in run.entries(kind)]
        points = thinned([(step, number) for step, number in found if number is not None])
        line = f"{run.name} {name}".strip()
        rows += [{"step": step, "value": number, "way": name or way.name, "line": line} for step, number in points]
        for step, number in points:
            by_step.setdefault(step, []).append(number)
    several = [(step, numbers) for step, numbers in sorted(by_step.items()) if len(numbers) == len(way.runs)]
    for step, numbers in several:
        row: dict[str, Any] = {"step": step, "mean": mean(numbers), "way": name or way.name, "line": "mean"}
        if len(numbers) > 1:
            half = difference(numbers, [0.0] * len(numbers))[1]
            row |= {"low": row["mean"] - half, "high": row["mean"] + half}
        rows.append(row)
    return rows


def thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Every so many points, the last among them."""
    every = -(-len(points) // POINTS) or 1
    return points[::-1][::every][::-1]
