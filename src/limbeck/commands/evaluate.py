"""``limbeck evaluate``: the students of runs beside their teacher, in numbers and in pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tyro
from rich.table import Table

from limbeck.data.parts import HeldOut
from limbeck.models.model import Model
from limbeck.models.run_folder import RunFolder
from limbeck.tasks import task_kind
from limbeck.training.display import wide_console

MANY = 8  # metrics that are still columns of the table


def evaluate(arguments: list[str]) -> None:
    """The students of runs beside the teacher of the first."""
    tyro.cli(_evaluate, args=arguments, prog="limbeck evaluate")


def _evaluate(
    runs: tyro.conf.Positional[list[Path]],
    /,
    data: str | None = None,
    split: HeldOut | None = None,
    batch_size: int | None = None,
    pictures: int = 0,
    score: float = 0.3,
) -> None:
    """Evaluate the students of runs, and the teacher that the first of them had, on validation images.

    Args:
        runs: Run folders: a distilled student, and those it is to be compared with, such as the student alone.
        data: Data as for limbeck train; by default those of the first run, with its --val-data.
        split: The part of the data that is measured on; by default that of the first run.
        batch_size: Images at a time: 128 with labels, 8 with masks or boxes, 1 with masks of several sizes.
        pictures: Draw this many validation images into the first run's pictures/: image, truth, the students from the
            last run named to the first, and the teacher (of segmenters and detectors only).
        score: Draw the objects that a detector is at least so sure of.
    """
    folders = [RunFolder(run) for run in runs]
    if not folders or not (folders[0].record.is_file() or folders[0].has_student()):
        raise ValueError(f"{runs[0] if runs else 'limbeck evaluate'}: name the folder of a run")
    if not 0 <= score <= 1:
        raise ValueError(f"score is {score}; it is a share, from 0 to 1")
    for run in folders:
        if not run.has_student():
            raise ValueError(f"{run} has no student yet; go on with: limbeck distill {run} --resume")
    card = folders[0].card()
    given = folders[0].read_record()["arguments"] if folders[0].record.is_file() else {}  # else Python made it
    recorded = {name: option(given, name) for name in ("val_data", "split")} if data is None else {}
    held_out = recorded if split is None else {"split": split}
    data = data or option(given, "data")
    if data is None:
        raise ValueError(f"{runs[0]} was made by a recipe that does not say where its data lie; pass --data")
    kind = task_kind(card["task"])
    validation = kind.validation(data, {**card, **held_out}, batch_size)
    models: dict[str, Model] = {}
    rows: dict[str, dict[str, float]] = {}
    if teacher := option(given, "teacher"):
        title = f"teacher {teacher}"
        models[title] = kind.build(teacher, validation.classes, option(given, "teacher_size"))
        if weights := option(given, "teacher_weights"):
            kind.load_weights(models[title], weights, name=teacher)
        rows[title] = validation.measure(models[title], teacher=True)
    for run in folders:
        models[str(run)] = kind.build(str(run), validation.classes)
        rows[str(run)] = validation.measure(models[str(run)])
    _print(f"validation images of {held_out.get('val_data') or data}: {validation.count}", rows)
    if pictures:
        folder = runs[0] / "pictures"
        models = dict(reversed(models.items()))
        validation.draw(models, pictures, folder, score)
        print(f"pictures: {folder}, each of image, truth, {', '.join(models)}; the colours are in classes.png")


def option(arguments: Mapping[str, Any], name: str) -> Any:
    """The value of an option in the arguments of a recipe, which hold some options in groups; ``None`` without it."""
    groups = [group for group in arguments.values() if isinstance(group, dict)]
    values = (group[name] for group in (*groups, arguments) if name in group)
    return next((value for value in values if not isinstance(value, dict)), None)


def _print(title: str, rows: dict[str, dict[str, float]]) -> None:
    columns = list(dict.fromkeys(name for metrics in rows.values() for name in metrics))
    table = Table(title=title, title_justify="left")
    shown = {name: {label: metrics[name] for label, metrics in rows.items() if name in metrics} for name in columns}
    head, first, cells = ("", list(rows), shown) if len(columns) > MANY else ("model", columns, rows)
    for column in (head, *first):
        table.add_column(column, overflow="fold")
    for label, values in cells.items():
        table.add_row(label, *(f"{values[name]:.4f}" if name in values else "" for name in first))
    wide_console().print(table)
