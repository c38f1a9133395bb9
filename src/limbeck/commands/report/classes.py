"""Which classes gain, and what is no longer taken for what."""

from __future__ import annotations

from typing import Any

import altair as alt

from limbeck.commands.report.charts import DIVERGING, coloured, gains, heatmap
from limbeck.commands.report.parts import Chart, Part, Section, Table, Text
from limbeck.commands.report.runs import Comparison, Entry, Run, Way, paired

MANY = 40  # classes that are shown in a chart, half of them the best and half the worst
SQUARE = 25  # classes whose confusion is drawn
CHANGES = 12  # of the confusion, that are listed where it is not drawn
MEASURES = {"accuracy": "accuracy", "iou": "IoU", "ap": "average precision"}


def section(comparison: Comparison) -> Section:
    """Gain by class, and difference of the confusion to the student alone."""
    title, baseline = "By class", comparison.baseline
    if not any(run.found() for run in comparison.runs):
        return Section(title, "These runs recorded nothing class by class.")
    if baseline is None:
        return Section(title, "The last student of each run.", [_values(comparison)])
    parts: list[Part] = []
    colours = coloured([way.name for way in comparison.ways], has_baseline=True)
    for way, (_, colour) in zip(comparison.others, colours[1:], strict=True):
        parts += _gains(way, baseline, colour)
    confusions = [part for way in comparison.others for part in _confusion(way, baseline)]
    about = (
        f"The last student of each run against {baseline.name}, paired by seed: a point is the mean difference, a line "
        "its 95 % interval, where there are two seeds or more."
    )
    if confusions:
        parts += confusions
        about += " The confusion is the share of each true class, in points; its diagonal is what is recognised more."
    elif _measure(comparison) == "ap":
        about += " Boxes have no confusion of classes here."
    return Section(title, about, parts)


def _measure(comparison: Comparison) -> str:
    found = next(found for run in comparison.runs if (found := run.found()))
    return str(found["measure"])


def names_of(found: Entry) -> list[str]:
    return found["names"] or [f"class {index}" for index in range(len(found["values"]))]


def _values(comparison: Comparison) -> Table:
    """The values by class of each run, with the teacher's."""
    columns: dict[str, Entry] = {run.name: found for run in comparison.runs if (found := run.found())}
    teacher = next((found for run in comparison.runs if (found := run.found("teacher"))), None)
    if teacher is not None:
        columns["teacher"] = teacher
    names = names_of(next(iter(columns.values())))
    rows = [
        [name, *(_percent(found["values"][index]) for found in columns.values())] for index, name in enumerate(names)
    ]
    return Table([f"{MEASURES[_measure(comparison)]}, %", *columns], rows)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _gains(way: Way, baseline: Way, colour: str) -> list[Part]:
    found = next((found for run in way.runs if (found := run.found())), None)
    if found is None:
        return []
    rows: list[dict[str, Any]] = []
    for index, name in enumerate(names_of(found)):
        gain = paired(_by_seed(way, index), _by_seed(baseline, index))
        if gain is not None:
            points, half, _ = gain
            span = {} if half is None else {"low": points - half, "high": points + half}
            rows.append({"name": name, "gain": points, **span})
    rows.sort(key=lambda row: -row["gain"])
    note = ""
    if len(rows) > MANY:
        note = f"The {MANY // 2} classes of {len(rows)} that gain most, and the {MANY // 2} that lose most."
        rows = rows[: MANY // 2] + rows[-MANY // 2 :]
    axis = f"gain in {MEASURES[found['measure']]}, points"
    return [Chart(f"Gain by class, {way.name}", gains(rows, colour, axis), note)] if rows else []


def _by_seed(way: Way, index: int) -> dict[int, float]:
    values = {run.seed: found["values"][index] for run in way.runs if (found := run.found())}
    return {seed: value for seed, value in values.items() if value is not None}


def _confusion(way: Way, baseline: Way) -> list[Part]:
    """The mean difference of the shares that are taken for each class."""
    mine, other = ({run.seed: run for run in each.runs if _is_counted(run)} for each in (way, baseline))
    pairs = [(_shares(mine[seed]), _shares(other[seed])) for seed in sorted(mine.keys() & other.keys())]
    if not pairs:
        return []
    names = names_of(next(iter(mine.values())).found() or {})
    places = {place for pair in pairs for shares in pair for place in shares}
    changes = {
        place: 100 * sum(one.get(place, 0.0) - two.get(place, 0.0) for one, two in pairs) / len(pairs)
        for place in places
    }
    title = f"Confusion, {way.name} less {baseline.name}"
    if len(names) > SQUARE:
        listed = sorted(changes.items(), key=lambda item: -abs(item[1]))[:CHANGES]
        rows = [[names[true], names[predicted], f"{value:+.2f}"] for (true, predicted), value in listed]
        return [Text("", title), Table(["true", "predicted", "change, points"], rows, numbers=2)]
    most = max(map(abs, changes.values())) or 1.0
    rows_: list[dict[str, Any]] = [
        {"line": true, "column": predicted, "value": changes.get((i, j), 0.0)}
        for i, true in enumerate(names)
        for j, predicted in enumerate(names)
    ]
    scale = alt.Scale(domain=[-most, 0, most], range=DIVERGING)
    chart = heatmap(rows_, names, names, ("predicted", "true", "change, points"), form="+.1f", scale=scale)
    return [Chart(title, chart)]


def _is_counted(run: Run) -> bool:
    return "confusion" in (run.found() or {})


def _shares(run: Run) -> dict[tuple[int, int], float]:
    counts = (run.found() or {})["confusion"]
    totals: dict[int, int] = {}
    for true, _, count in counts:
        totals[true] = totals.get(true, 0) + count
    return {(true, predicted): count / totals[true] for true, predicted, count in counts}
