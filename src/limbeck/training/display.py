"""What a run shows while it works: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from limbeck.training.preflight import Row


class Display:
    """Progress of a run. Silent where ``quiet``, as on all processes but the first.

    Rates are over the time since the last call of ``losses``; waiting for data is shown as its share.
    """

    def __init__(self, quiet: bool = False):
        self.console = wide_console(quiet)
        self._progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total}"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[status]}"),
            TextColumn("{task.fields[best]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._bar = self._progress.add_task("run", total=None, epoch="", status="", best="")
        self._since, self._images, self._waited = time.perf_counter(), 0, 0.0

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def say(self, line: str) -> None:
        self.console.print(line, markup=False, soft_wrap=True)

    def matches(self, rows: Sequence[Row]) -> None:
        table = Table(title="matches", title_justify="left")
        for column in ("match", "student", "teacher", "grid", "parameters", "weight", "value"):
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(
                row.match, row.student, row.teacher, row.grid, f"{row.parameters:,}", row.weight, f"{row.value:.4g}"
            )
        self.console.print(table)

    def epoch(self, epoch: int, epochs: int, steps: int, done: int) -> None:
        self._progress.reset(self._bar, total=steps, completed=done)  # would replace the fields by those given here
        self._progress.update(self._bar, epoch=f"{epoch + 1}/{epochs}")
        self._since, self._images, self._waited = time.perf_counter(), 0, 0.0

    def step(self, images: int, waited: float) -> None:
        """Count a step of so many images, for which the loop waited so many seconds."""
        self._images += images
        self._waited += waited
        self._progress.advance(self._bar)

    def losses(self, epoch: int, step: int, losses: Mapping[str, float]) -> dict[str, float]:
        """Show the mean losses since the last call, and give the rates of that time."""
        seconds = max(time.perf_counter() - self._since, 1e-9)
        rates = {"images_per_second": self._images / seconds, "data_wait": self._waited / seconds}
        self._since, self._images, self._waited = time.perf_counter(), 0, 0.0
        status = " ".join(f"{name} {value:.4g}" for name, value in losses.items())
        status += f" | {rates['images_per_second']:.0f} img/s, {rates['data_wait']:.0%} waiting for data"
        self._progress.update(self._bar, status=status)
        if not self.console.is_terminal:
            self.say(f"epoch {epoch + 1} step {step}: {status}")
        return rates

    def metrics(self, epoch: int, metrics: Mapping[str, float], best: str) -> None:
        self._progress.update(self._bar, best=best)
        self.say(f"epoch {epoch + 1}: {show(metrics)} | {best}")


def wide_console(quiet: bool = False) -> Console:
    """A console that does not fold tables to 80 columns where the output is no terminal."""
    console = Console(quiet=quiet, highlight=False)
    return console if console.is_terminal else Console(quiet=quiet, highlight=False, width=160)


def show(metrics: Mapping[str, float]) -> str:
    """Metrics in a line, without those of one class, whose names hold a space: there may be a hundred."""
    return " ".join(f"{name} {value:.4f}" for name, value in metrics.items() if " " not in name)
