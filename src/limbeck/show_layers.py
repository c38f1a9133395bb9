"""``limbeck layers``: every layer of a model, with its shape and stride."""

from __future__ import annotations

from pathlib import Path

import torch
import tyro
from rich.console import Console
from rich.table import Table

from limbeck.display import wide_console
from limbeck.layers import last_spatial, survey
from limbeck.models import build_model, read_card
from limbeck.segmenter_parts import before_classifier
from limbeck.segmenters import build_segmenter, is_segmenter


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
        model: timm:NAME, torchvision:NAME, smp:ARCH/ENCODER, hf:FOLDER, FILE.py:FUNCTION, or a run folder.
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
    built, inputs = build_segmenter(name, classes) if is_segmenter(name) else build_model(name, classes, size)
    size = size or inputs.size
    if size % inputs.multiple:
        raise ValueError(f"{name} takes images whose height and width are multiples of {inputs.multiple}, not {size}")
    image = torch.zeros(1, 3, size, size)
    table = Table(title=f"{name} at {size} px", title_justify="left")
    for column in ("layer", "kind", "shape", "stride"):
        table.add_column(column, overflow="fold")
    all_found = survey(built, image)
    for found in all_found:
        grid = found.grid()
        if found.path.count(".") < depth:
            stride = f"{size / grid[0]:g}" if grid else ""
            table.add_row(found.path or '"" (output)', found.kind, str(found.shape[1:]), stride)
    console.print(table)
    last = last_spatial(built, all_found)
    path = last.path
    if is_segmenter(name):  # of which the last map is the class scores
        path = str(before_classifier(built))
        last = next(found for found in all_found if found.path == path.removesuffix(":input"))
    grid = last.grid()
    assert grid is not None  # it is spatial
    console.print(f"last feature map: {path}")
    return path, grid
