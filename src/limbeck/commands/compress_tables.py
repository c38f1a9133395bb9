"""What ``limbeck compress`` prints: what became of every layer, and what the model costs before and after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accelerate.utils import send_to_device
from rich.table import Table
from torch import nn

from limbeck.compress.factorise import Row
from limbeck.core.modules import device_of
from limbeck.models.cost import cost
from limbeck.training.display import wide_console
from limbeck.training.recipe import Recipe

BATCH = 32  # images of which the throughput is measured


def print_layers(rows: list[Row], whole: Mapping[str, str]) -> None:
    """What became of every layer."""
    table = Table()
    for column in ("layer", "form", "ranks", "parameters", "MACs, M", "error"):
        table.add_column(column, overflow="fold")
    for row in rows:
        ranks = " x ".join(str(rank) for rank in row.ranks if rank is not None)
        parameters = f"{row.parameters[0]:,} to {row.parameters[1]:,}"
        macs = f"{row.flops[0] / 2e6:.3g} to {row.flops[1] / 2e6:.3g}"
        table.add_row(row.path, row.form, ranks, parameters, macs, f"{row.error:.4f}")
    console = wide_console()
    console.print(table)
    by_reason: dict[str, list[str]] = {}
    for path, reason in whole.items():
        by_reason.setdefault(reason, []).append(path)
    for reason, paths in by_reason.items():
        console.print(f"whole, {reason}: {', '.join(paths)}", markup=False, soft_wrap=True)


def print_costs(recipe: Recipe, models: Mapping[str, nn.Module], metrics: list[dict[str, float]]) -> None:
    """Metric, parameters, multiplications and time of the model before and after."""
    sample = recipe.train_data[0, 0]

    def example(count: int) -> Any:
        return recipe.task.inputs(send_to_device(recipe.collate([sample] * count), device_of(recipe.student)))

    table = Table()
    for column in ("", recipe.task.metric, "parameters", "MACs, M", "one image, ms", "images a second"):
        table.add_column(column, overflow="fold")
    for (title, model), each in zip(models.items(), metrics, strict=True):
        measured = cost(model, example, BATCH)
        value = f"{each[recipe.task.metric]:.4f}" if recipe.task.metric in each else ""
        speed = f"{measured.latency:.2f}", f"{measured.throughput:.1f}"
        table.add_row(title, value, f"{measured.parameters:,}", f"{measured.macs / 1e6:.4g}", *speed)
    wide_console().print(table)
