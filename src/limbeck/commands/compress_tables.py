"""What ``limbeck compress`` prints: what became of every layer, and what the model costs before and after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accelerate.utils import send_to_device
from rich.console import Console
from torch import nn

from limbeck.commands.tables import print_table
from limbeck.compress.factorise import Row
from limbeck.core.modules import device_of
from limbeck.models.cost import cost
from limbeck.models.memory import peak_memory
from limbeck.training.recipe import Recipe

BATCH = 32  # images of which the throughput is measured


def print_layers(rows: list[Row], whole: Mapping[str, str], console: Console) -> None:
    """What became of every layer."""
    cells: list[list[str]] = []
    for row in rows:
        ranks = " x ".join(str(rank) for rank in row.ranks if rank is not None)
        parameters = f"{row.parameters[0]:,} to {row.parameters[1]:,}"
        macs = f"{row.flops[0] / 2e6:.3g} to {row.flops[1] / 2e6:.3g}"
        cells.append([row.path, row.form, ranks, parameters, macs, f"{row.error:.4f}"])
    print_table(("layer", "form", "ranks", "parameters", "MACs, M", "error"), cells, console=console)
    by_reason: dict[str, list[str]] = {}
    for path, reason in whole.items():
        by_reason.setdefault(reason, []).append(path)
    for reason, paths in by_reason.items():
        console.print(f"whole, {reason}: {', '.join(paths)}", markup=False, soft_wrap=True)


def costs_of(recipe: Recipe, models: Mapping[str, nn.Module], metrics: list[dict[str, float]]) -> list[dict[str, Any]]:
    """Metric, parameters, multiplications, time and memory of each model, such as before and after."""
    sample = recipe.train_data[0, 0]

    def example(count: int) -> Any:
        return recipe.task.inputs(send_to_device(recipe.collate([sample] * count), device_of(recipe.student)))

    rows: list[dict[str, Any]] = []
    name = recipe.task.metric
    for (title, model), each in zip(models.items(), metrics, strict=True):
        measured = cost(model, example, BATCH)
        rows.append(
            {
                "model": title,
                name: each.get(name),
                "parameters": measured.parameters,
                "MACs, M": measured.macs / 1e6,
                "one image, ms": measured.latency,
                "images a second": measured.throughput,
                "peak memory of one image, MB": peak_memory(model, example(1)) / 1e6,
            }
        )
    return rows


def print_costs(rows: list[dict[str, Any]], console: Console | None = None) -> None:
    """What models cost, and give, side by side."""
    head = ["" if column == "model" else column for column in rows[0]]
    print_table(head, [[shown(value) for value in row.values()] for row in rows], console=console)


def shown(value: str | float | None) -> str:
    """A cell of a table.

    >>> [shown(value) for value in ("original", None, 86582, 0.672, 110.93)]
    ['original', '', '86,582', '0.6720', '110.9']
    """
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if value < 1 else f"{value:.4g}"
