"""``limbeck layers``: every layer of a model, with its shape and stride."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Annotated

import torch
import tyro
from rich.console import Console

from limbeck.commands.arguments import call
from limbeck.commands.light_imports import import_without_compiler
from limbeck.commands.tables import print_table
from limbeck.models.build import RUN, source_of
from limbeck.models.features import survey
from limbeck.models.maps import Found
from limbeck.models.model import Model
from limbeck.tasks import task_kind_of
from limbeck.training.display import wide_console
from limbeck.training.ranges import check_ranges

UNKNOWN = ["?"] * 1000  # classes of a model that no data is given for


def layers(arguments: list[str]) -> None:
    """Every layer of a model."""
    call(_layers, "limbeck layers", arguments)


def _layers(
    model: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL")],
    /,
    size: int | None = None,
    beside: str | None = None,
    beside_size: int | None = None,
    depth: int = 3,
) -> None:
    """List the layers of a model: dotted path, kind and shape of its feature for one image, and its stride in pixels.

    Layers that run several times for an image cannot be matched and are left out, as are the heads of detectors.

    Args:
        model: timm:NAME, torchvision:NAME, torchvision:HEAD/timm:BACKBONE, smp:ARCH/ENCODER, hf:FOLDER,
            FILE.py:FUNCTION, or a run folder.
        size: Image size in pixels; the model's own by default.
        beside: A teacher: list it too, and say how the last maps of the two would meet.
        beside_size: The teacher's image size.
        depth: Longest path shown, in submodules; of segmenters and detectors, below the encoder.
    """
    check_ranges({"size": size, "beside_size": beside_size, "depth": depth})
    import_without_compiler()
    torch.set_num_threads(1)  # for one image, where starting and waiting for others takes longer
    console = wide_console()
    student = _show(console, model, size, depth)
    if beside is not None:
        console.print(how_they_meet(student, _show(console, beside, beside_size, depth)))


@dataclass(frozen=True)
class Shown:
    """What methods read of a model by default."""

    last: str  # path of the last map
    embedding: str  # what a classifier takes of it; empty of a detector
    by_class_token: bool
    grid: tuple[int, int]  # its height and width
    strides: list[int]  # of a detector's pyramid, in pixels


def _show(console: Console, name: str, size: int | None, depth: int) -> Shown:
    """Print the table of a model."""
    model = task_kind_of(name).build(name, [] if source_of(name)[0] == RUN else UNKNOWN, size)
    pixels = size or model.inputs.example.shape[-1]
    if pixels % model.inputs.multiple:
        raise ValueError(
            f"{name} takes images whose height and width are multiples of {model.inputs.multiple}, not {pixels}"
        )
    rows: list[list[str]] = []
    surveyed = survey(model.module, torch.zeros(1, 3, size, size)) if size else model.surveyed
    runs = Counter(found.path for found in surveyed)
    root = model.encoder.partition(".")[0] if model.levels else ""
    below = model.encoder.count(".") + 1 if model.encoder else 0
    for found in surveyed:
        if runs[found.path] == 1 and found.path.startswith(root) and found.path.count(".") < depth + below:
            may_be_queries = found.kind == "tokens" and model.find_queries is not None
            grid = None if may_be_queries else found.size
            stride = f"{pixels // grid[0]}" if grid and pixels % grid[0] == 0 else ""
            rows.append([found.path or '"" (output)', found.kind, str(found.shape[1:]), stride])
    print_table(("layer", "kind", "shape", "stride"), rows, f"{name} at {pixels} px")
    return _summary(console, model, surveyed)


def _summary(console: Console, model: Model, surveyed: list[Found]) -> Shown:
    strides = sorted(model.levels)
    if strides:
        console.print(f"levels of the pyramid, by stride: {', '.join(map(str, strides))}")
    last = model.last_map
    grid = [found for found in surveyed if found.path == last.path][-1].size
    assert grid is not None  # it is spatial
    console.print(f"last feature map{' of the backbone' if strides else ''}: {last}")
    if strides:
        return Shown(str(last), "", False, grid, strides)
    if by_class_token := model.class_token is not None:
        console.print("it is classified by its class token alone, which ChannelTransform reads instead of the map")
    return Shown(str(last), str(model.embedding), by_class_token, grid, strides)


def how_they_meet(student: Shown, teacher: Shown) -> str:
    if student.strides and teacher.strides:
        common = sorted(set(student.strides) & set(teacher.strides))
        return f"levels meet at the strides {', '.join(map(str, common))}" if common else "no level has a counterpart"
    if student.embedding and teacher.embedding and (student.by_class_token or teacher.by_class_token):
        return f"{student.embedding} and {teacher.embedding} meet, a class token or the mean of a map each"
    of_student, of_teacher = ("x".join(map(str, shown.grid)) for shown in (student, teacher))
    meet = "meet as they are" if of_student == of_teacher else f"meet at {of_teacher}: the student's is resized"
    return f"{student.last} ({of_student}) and {teacher.last} ({of_teacher}) {meet}"
