"""``limbeck evaluate``: the students of runs beside their teacher, in numbers and in pictures."""

from __future__ import annotations

import sys
from functools import partial
from json import dumps
from pathlib import Path
from typing import Literal

from limbeck.commands.arguments import call
from limbeck.commands.record import arguments_of, data_of
from limbeck.commands.tables import print_table
from limbeck.commands.words import Runs, relative
from limbeck.data.parts import HeldOut
from limbeck.models.cost import cost
from limbeck.models.model import Model
from limbeck.models.run_folder import RunFolder
from limbeck.models.teachers import build_teacher, other_classes
from limbeck.tasks import task_kind
from limbeck.tasks.kind import TaskKind
from limbeck.training.by_class import ByClass
from limbeck.training.ranges import check_ranges

COSTS = {  # what a column is called: field of a cost, and how many are one
    "parameters, M": ("parameters", 1e6),
    "MACs, G": ("macs", 1e9),
    "one image, ms": ("latency", 1),
    "images a second": ("throughput", 1),
}
MANY = 8  # metrics that are still columns of the table


def evaluate(arguments: list[str]) -> None:
    """The students of runs beside the teacher of the first."""
    call(_evaluate, "limbeck evaluate", arguments)


def _evaluate(
    runs: Runs,
    /,
    data: str | None = None,
    val_data: Path | None = None,
    split: HeldOut | None = None,
    weights: Literal["best", "last"] = "best",
    batch_size: int | None = None,
    speed: bool = False,
    by_class: bool = False,
    json: bool = False,
    pictures: int = 0,
    score: float = 0.3,
) -> None:
    """Evaluate the students of runs, and the teacher that the first of them had, on validation images.

    Args:
        runs: Run folders: a distilled student, and those it is to be compared with, such as the student alone.
        data: Data as for limbeck train; by default those of the first run, with its --val-data.
        val_data: A folder or list of images that are all measured on, such as a new test set, or its val or test part;
            training images need not be there.
        split: The part of the data that is measured on; by default that of the first run.
        weights: The student that is taken of each run: the one that was the best, or as it was at the end.
        batch_size: Images at a time: 128 with labels, 8 with masks or boxes, 1 with masks of several sizes.
        speed: Also show parameters, multiplications, the time of one image, and images a second at the batch size.
        by_class: Show the accuracy, intersection over union or average precision of each class, too.
        json: Print JSON instead of a table, that of each class in it.
        pictures: Draw so many images, their truth and what each model predicts, into pictures/ of the first run.
        score: Least score of an object of a detector that is drawn.
    """
    check_ranges({"batch_size": batch_size, "pictures": pictures, "score": score})
    folders = [RunFolder(run) for run in runs]
    students = _students(folders, weights)
    card = folders[0].card()
    data, held_out = data_of(folders[0], data, split, val_data)
    kind = task_kind(card["task"])
    validation = kind.validation(data, {**card, **held_out}, batch_size)
    for note in validation.notes:
        print(note, file=sys.stderr)
    models = _models(kind, folders[0], students, validation.classes)
    if pictures:  # first, as a task that has none says so
        folder, drawn = folders[0].path / "pictures", dict(reversed(models.items()))
        validation.draw(drawn, pictures, folder, score)
        told = f"pictures: {folder}, each of image, truth, {', '.join(drawn)}; the colours are in classes.png"
        print(told, file=sys.stderr if json else sys.stdout)
    rows: dict[str, dict[str, float]] = {}
    classes: dict[str, ByClass | None] = {}
    for title, model in models.items():
        rows[title] = validation.measure(model, teacher=title not in students)
        classes[title] = validation.by_class
        if speed:
            costs = cost(model.module, partial(validation.example, model), validation.batch_size)
            rows[title] |= {named: getattr(costs, field) / unit for named, (field, unit) in COSTS.items()}
    place, part = str(held_out.get("val_data") or data), held_out.get("split")
    if json:
        named = {title: found and found.named(validation.classes) for title, found in classes.items()}
        print(dumps({"data": place, "split": part, "images": validation.count, "models": rows, "by_class": named}))
    else:
        shown = _without_classes(rows, classes, validation.classes) if by_class else rows
        _print(f"{'test' if part == 'test' else 'validation'} images of {place}: {validation.count}", shown)
        if by_class:
            _print_classes(validation.classes, classes)


def _students(folders: list[RunFolder], weights: Literal["best", "last"]) -> dict[str, Path]:
    """The students of runs by title.

    Raises:
        ValueError: One is not there.
    """
    if not folders or not (folders[0].record.is_file() or folders[0].has_student()):
        raise ValueError(f"{folders[0] if folders else 'limbeck evaluate'}: name the folder of a run")
    for run in folders:
        if not run.path.is_dir():
            raise ValueError(f"{run} is no run: name folders of runs")
        if not run.has_student():
            raise ValueError(f"{run} has no student yet; go on with: {run.going_on()}")
    return {str(run): run.student_of(weights) for run in folders}


def _models(kind: TaskKind, run: RunFolder, students: dict[str, Path], classes: list[str]) -> dict[str, Model]:
    """The teacher of a run, if it had one, and students, by title."""
    given = arguments_of(run)
    models = {title: kind.build(str(student), classes) for title, student in students.items()}
    if not (teacher := given.get("teacher")):
        return models
    title = f"teacher {relative(teacher)}"
    try:
        model = build_teacher(kind.build, teacher, classes, given.get("teacher_size"), task=kind.name)
        if source := given.get("teacher_weights"):
            kind.load_weights(model, source, name=teacher)
    except ValueError as error:  # moved since, or on another machine
        print(f"{title} is not measured, since it cannot be loaded: {error}", file=sys.stderr)
        return models
    if model.classes == classes:
        return {title: model, **models}
    print(f"{title} {other_classes(model)}, so it is not measured", file=sys.stderr)
    return models


def _print(title: str, rows: dict[str, dict[str, float]]) -> None:
    columns = list(dict.fromkeys(name for metrics in rows.values() for name in metrics))
    shown = {name: {label: metrics[name] for label, metrics in rows.items() if name in metrics} for name in columns}
    head, first, cells = ("", list(rows), shown) if len(columns) > MANY else ("model", columns, rows)
    lines = [
        [label, *(f"{values[name]:.4f}" if name in values else "" for name in first)] for label, values in cells.items()
    ]
    print_table([head, *first], lines, title)


def _without_classes(
    rows: dict[str, dict[str, float]], classes: dict[str, ByClass | None], names: list[str]
) -> dict[str, dict[str, float]]:
    """Rows without the metrics of single classes, which have a table of their own."""
    measures = {by_class.measure for by_class in classes.values() if by_class is not None}
    of_classes = {f"{measure} {name}" for measure in measures for name in names}
    return {
        title: {name: value for name, value in metrics.items() if name not in of_classes}
        for title, metrics in rows.items()
    }


def _print_classes(names: list[str], models: dict[str, ByClass | None]) -> None:
    """A row a class, a column a model; a class that is not there has no value."""
    found = {title: by_class for title, by_class in models.items() if by_class is not None}
    if not found:
        raise ValueError(f"{len(names)} classes are more than are counted one by one: leave out --by-class")
    columns = [["" if value is None else f"{value:.4f}" for value in by_class.values] for by_class in found.values()]
    rows = [list(row) for row in zip(names, *columns, strict=True)]
    print_table(["class", *found], rows, f"{next(iter(found.values())).measure} by class")
