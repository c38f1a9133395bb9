"""``limbeck layers``: every layer of a model, with its shape and stride."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from rich.console import Console
from rich.table import Table

from limbeck.models.build import build_model
from limbeck.models.features import last_spatial, survey
from limbeck.models.run_folder import RunFolder
from limbeck.tasks.detection.models import backbone_path, build_detector, is_detector, levels_of
from limbeck.tasks.semantic.models import build_segmenter, is_segmenter
from limbeck.tasks.semantic.parts import before_classifier
from limbeck.training.display import wide_console


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
        model: timm:NAME, torchvision:NAME, torchvision:HEAD/timm:BACKBONE, smp:ARCH/ENCODER, hf:FOLDER,
            FILE.py:FUNCTION, or a run folder.
        size: Image size in pixels; the model's own by default.
        beside: A teacher: list it too, and say how the last maps of the two would meet.
        beside_size: The teacher's image size.
        depth: Longest path shown, in submodules.
    """
    console = wide_console()
    here = _show(console, model, size, depth)
    if beside is not None:
        console.print(how_they_meet(here, _show(console, beside, beside_size, depth)))


@dataclass(frozen=True)
class Shown:
    """What methods read of a model by default."""

    last: str  # path of the last spatial feature
    grid: tuple[int, int]  # its height and width
    strides: list[int]  # of a detector's pyramid, in pixels


def _show(console: Console, name: str, size: int | None, depth: int) -> Shown:
    """Print the table."""
    run = RunFolder(Path(name))
    classes = run.card()["classes"] if run.has_student() else [""] * 1000
    segmenter, detector = is_segmenter(name), is_detector(name)
    build = build_segmenter if segmenter else build_detector if detector else None
    model, inputs = build(name, classes) if build else build_model(name, classes, size)
    size = size or inputs.size
    if size % inputs.multiple:
        raise ValueError(f"{name} takes images whose height and width are multiples of {inputs.multiple}, not {size}")
    table = Table(title=f"{name} at {size} px", title_justify="left")
    for column in ("layer", "kind", "shape", "stride"):
        table.add_column(column, overflow="fold")
    all_found = survey(model, torch.zeros(1, 3, size, size))
    strides = sorted(levels_of(model)) if detector else []
    if strides:  # the heads run once for each level, and their layers cannot be matched
        all_found = [found for found in all_found if found.path.startswith("backbone.")]
    for found in all_found:
        grid = found.grid()
        if found.path.count(".") < depth + 2 * bool(strides):  # beside backbone.body
            stride = f"{size / grid[0]:g}" if grid else ""
            table.add_row(found.path or '"" (output)', found.kind, str(found.shape[1:]), stride)
    console.print(table)
    if strides:
        all_found = [found for found in all_found if found.path.startswith(backbone_path(model))]
        console.print(f"levels of the pyramid, by stride: {', '.join(map(str, strides))}")
    last = last_spatial(model, all_found)
    path = last.path
    if segmenter:  # of which the last map is the class scores
        path = str(before_classifier(model))
        last = next(found for found in all_found if found.path == path.removesuffix(":input"))
    grid = last.grid()
    assert grid is not None  # it is spatial
    console.print(f"last feature map{' of the backbone' if strides else ''}: {path}")
    return Shown(path, grid, strides)


def how_they_meet(student: Shown, teacher: Shown) -> str:
    if student.strides and teacher.strides:
        common = sorted(set(student.strides) & set(teacher.strides))
        return f"levels meet at the strides {', '.join(map(str, common))}" if common else "no level has a counterpart"
    here, there = ("x".join(map(str, shown.grid)) for shown in (student, teacher))
    meet = "meet as they are" if here == there else f"meet at {there}: the student's is resized"
    return f"{student.last} ({here}) and {teacher.last} ({there}) {meet}"
