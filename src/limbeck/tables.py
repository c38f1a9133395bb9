"""Tables on the terminal: ``limbeck evaluate`` and ``limbeck layers``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader

from limbeck.data.images import Images, load_images
from limbeck.data.transforms import ValImages
from limbeck.display import wide_console
from limbeck.layers import last_spatial, survey
from limbeck.models import build_model, load_weights, read_card
from limbeck.tasks.classification import Classification


def evaluate(arguments: list[str]) -> None:
    """The students of runs beside the teacher of the first."""
    tyro.cli(_evaluate, args=arguments, prog="limbeck evaluate")


def _evaluate(runs: tyro.conf.Positional[list[Path]], /, data: str | None = None, batch_size: int = 128) -> None:
    """Evaluate the students of runs, and the teacher that the first of them had, on validation images.

    Args:
        runs: Run folders: a distilled student, and those it is to be compared with, such as the student alone.
        data: As for limbeck train; by default the data of the first run.
        batch_size: Images at a time.
    """
    if not runs or not (runs[0] / "recipe.json").is_file():
        raise ValueError(f"{runs[0] if runs else 'limbeck evaluate'}: name the folder of a run")
    given = json.loads((runs[0] / "recipe.json").read_text())["arguments"]
    data = data or given["data"]["data"]
    _, images = load_images(data, seed=given["data"]["data_seed"], skip_bad=given["data"]["skip_bad_images"])
    rows: dict[str, dict[str, float]] = {}
    teacher_says = None
    if teacher := given.get("teacher"):
        task, model, loader = _prepare(teacher, images, batch_size, given["teacher_weights"], given["teacher_size"])
        rows[f"teacher {teacher}"] = task.evaluate_teacher(model, loader)
        teacher_says = task.teacher_says
    for run in runs:
        task, model, loader = _prepare(str(run), images, batch_size)
        task.teacher_says = teacher_says
        rows[str(run)] = task.evaluate(model, loader)
    _print(f"validation images of {data}: {len(images)}", rows)


def _prepare(
    name: str, images: Images, batch_size: int, weights: str | None = None, size: int | None = None
) -> tuple[Classification, torch.nn.Module, Iterator[Any]]:
    model, inputs = build_model(name, images.classes, size)
    if weights is not None:
        load_weights(model, weights, name=name)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    card = Path(name) / "student.safetensors"  # a run is evaluated as it was trained
    load_size = read_card(card)["load_size"] if card.is_file() else min(inputs.size, *images.read(0).shape[1:])
    loader = DataLoader(ValImages(images, load_size), batch_size)
    batches = ({key: value.to(device) for key, value in batch.items()} for batch in loader)
    return Classification(len(images.classes), inputs, inputs), model.to(device), batches


def _print(title: str, rows: dict[str, dict[str, float]]) -> None:
    columns = list(dict.fromkeys(name for metrics in rows.values() for name in metrics))
    table = Table(title=title, title_justify="left")
    for column in ("model", *columns):
        table.add_column(column, overflow="fold")
    for label, metrics in rows.items():
        table.add_row(label, *(f"{metrics[name]:.4f}" if name in metrics else "" for name in columns))
    wide_console().print(table)


def layers(arguments: list[str]) -> None:
    """Every layer of a model."""
    tyro.cli(_layers, args=arguments, prog="limbeck layers")


def _layers(
    model: tyro.conf.Positional[str],
    /,
    size: int | None = None,
    beside: str | None = None,
    beside_size: int | None = None,
    depth: int = 3,
) -> None:
    """List the layers of a model: dotted path, kind and shape of its feature for one image, and its stride in pixels.

    Args:
        model: timm:NAME, torchvision:NAME, FILE.py:FUNCTION, or a run folder.
        size: Image size in pixels; the model's own by default.
        beside: A teacher: list it too, and say how the last maps of the two would meet.
        beside_size: The teacher's image size.
        depth: Longest path shown, in submodules.
    """
    console = wide_console()
    path, here = _show_layers(console, model, size, depth)
    if beside is not None:
        teacher_path, there = _show_layers(console, beside, beside_size, depth)
        meet = "meet as they are" if here == there else f"meet at {there[0]}x{there[1]}: the student's is resized"
        console.print(f"{path} ({here[0]}x{here[1]}) and {teacher_path} ({there[0]}x{there[1]}) {meet}")


def _show_layers(console: Console, name: str, size: int | None, depth: int) -> tuple[str, tuple[int, int]]:
    """Print the table, and give path, height and width of the last spatial feature."""
    card = Path(name) / "student.safetensors"
    classes = read_card(card)["classes"] if card.is_file() else [""] * 1000
    built, inputs = build_model(name, classes, size)
    image = torch.zeros(1, 3, inputs.size, inputs.size)
    table = Table(title=f"{name} at {inputs.size} px", title_justify="left")
    for column in ("layer", "kind", "shape", "stride"):
        table.add_column(column, overflow="fold")
    all_found = survey(built, image)
    for found in all_found:
        grid = found.grid()
        if found.path.count(".") < depth:
            stride = f"{inputs.size / grid[0]:g}" if grid else ""
            table.add_row(found.path or '"" (output)', found.kind, str(found.shape[1:]), stride)
    console.print(table)
    last = last_spatial(built, all_found)
    grid = last.grid()
    assert grid is not None  # it is spatial
    console.print(f"last feature map: {last.path}")
    return last.path, grid
