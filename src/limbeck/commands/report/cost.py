"""What a step of the training costs, by part."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, median

from limbeck.commands.report.charts import ALONE, COLOURS, stacked
from limbeck.commands.report.parts import Chart, Legend, Part, Section, Table
from limbeck.commands.report.runs import Comparison, Run

PARTS = {
    "student": COLOURS[0],
    "teacher": COLOURS[1],
    "criteria": COLOURS[2],
    "waiting for data": COLOURS[3],
    "other": ALONE,
}


def section(comparison: Comparison) -> Section:
    """Milliseconds and MiB by part."""
    title = "Cost of a step"
    costs = {way.name: found for way in comparison.ways if (found := averaged([cost_of(run) for run in way.runs]))}
    if not costs:
        return Section(title, "These runs recorded no times; a run does after its first epoch.")
    rows = [
        {"way": name, "part": part, "value": found[part], "order": order}
        for name, found in costs.items()
        for order, part in enumerate(PARTS)
        if part in found
    ]
    used = [(part, colour) for part, colour in PARTS.items() if any(row["part"] == part for row in rows)]
    head = ["", "part", "ms", "of the step", "kept for the backward pass, MiB"]
    parts: list[Part] = [
        Legend(used),
        Chart("Time of a step", stacked(rows, used, "milliseconds"), wide=True),
        Table(head, [row for name, found in costs.items() for row in _rows(name, found)], numbers=2),
    ]
    peaks = [[run.name, *_peak(run)] for run in comparison.runs if run.entries("memory")]
    if peaks:
        has_gpu = any(cells[-1] for cells in peaks)
        head = ["peak memory of the process", "host, MiB", *["GPU, MiB"] * has_gpu]
        parts.append(Table(head, [cells[: len(head)] for cells in peaks]))
    about = (
        "Student: forward and backward pass by the task's loss. Teacher: its forward pass. Criteria: they and the "
        "projectors, forwards and backwards. Measured after the first epoch on one batch, without compilation. Waiting "
        "for data, and other (optimizer, clipping, log), from the pace of the whole training, the median over its log."
    )
    return Section(title, about, parts)


def cost_of(run: Run) -> dict[str, float]:
    """Milliseconds of a whole step by part, and MiB by ``PART MiB``; empty where nothing was recorded."""
    recorded, paces = run.entries("cost"), run.entries("train")
    if not recorded or "student_ms" not in recorded[-1]:
        return {}
    cost, parts = recorded[-1], ("student", "teacher", "criteria")
    found = {part: cost["accumulate"] * cost[f"{part}_ms"] for part in parts if f"{part}_ms" in cost}
    found |= {f"{part} MiB": cost[f"{part}_mib"] for part in parts if f"{part}_mib" in cost}
    if paces:
        step = 1e3 * cost["batch_size"] / median(entry["images_per_second"] for entry in paces)
        found["waiting for data"] = step * median(entry["data_wait"] for entry in paces)
        spent = sum(found.get(part, 0.0) for part in (*parts, "waiting for data"))
        found["other"] = max(0.0, step - spent)
    return found


def averaged(costs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Means over runs, of what all of them have."""
    known = [cost for cost in costs if cost]
    return (
        {part: mean(cost[part] for cost in known) for part in known[0] if all(part in cost for cost in known)}
        if known
        else {}
    )


def _rows(name: str, found: dict[str, float]) -> list[list[str]]:
    shown = [part for part in PARTS if part in found]
    total = sum(found[part] for part in shown)
    rows = []
    for index, part in enumerate(shown):
        kept = f"{found[f'{part} MiB']:.1f}" if f"{part} MiB" in found else ""
        rows.append([name if index == 0 else "", part, f"{found[part]:.1f}", f"{found[part] / total:.0%}", kept])
    return rows


def _peak(run: Run) -> list[str]:
    last = run.entries("memory")[-1]
    return [f"{last[each]:,.0f}" if each in last else "" for each in ("host_mib", "gpu_mib")]
