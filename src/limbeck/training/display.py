"""What a run shows while it works: two live lines on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from textwrap import fill
from types import TracebackType
from typing import TypeVar

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column
from rich.text import Text

from limbeck.data.progress import is_terminal
from limbeck.training.logs import logged_above

Item = TypeVar("Item")
OTHERS = 2  # metrics shown beside the one by which the best student is chosen; all of them are in metrics.jsonl
OFTEN = 0.25  # seconds between two drawings of the live lines while steps follow each other
WAITING = 0.1  # share of the time spent waiting for data from which on it is shown


class Display:
    """Progress of a run.

    On a terminal two lines are kept up to date: how far the run is and how long it still takes, evaluations counted in;
    and the losses. Elsewhere each look at the losses is a line. Rates are over the time since the last call of
    ``losses``.

    Args:
        quiet: Show the live lines alone.
        hidden: Show nothing, as on all processes but the first.
        title: Stands before the live line, where several runs follow each other.
    """

    def __init__(self, *, quiet: bool = False, hidden: bool = False, title: str = ""):
        self.console = wide_console(quiet=hidden)
        self.quiet, self.title = quiet, title
        # Not console.is_terminal, which FORCE_COLOR makes true of files; a dumb terminal cannot take a line back.
        self.is_live = is_terminal(self.console.file) and not self.console.is_dumb_terminal and not hidden
        self._progress = Progress(
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=4)),
            TextColumn("{task.completed:.0f}/{task.total:.0f}", table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[left]}", table_column=Column(no_wrap=True)),
            console=self.console,
            expand=True,
        )
        self._status = Text(no_wrap=True, overflow="ellipsis")
        # Drawn by those who change it: a thread of rich that draws while a line is said takes that line off the screen.
        self._live = Live(get_renderable=self._lines, console=self.console, auto_refresh=False, transient=True)
        self._shown = ExitStack()
        self._drawn = 0.0
        self._run = self._progress.add_task("", total=1, left="", visible=False)
        self._best = ""
        self._file: Path | None = None
        self._unwritten: list[str] = []
        self._steps_before = 0  # done when this process began
        self._begun = self._since = time.perf_counter()
        self._images, self._waited = 0, 0.0

    def __enter__(self) -> Display:
        if self.is_live:
            self._shown.enter_context(logged_above(self._live))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._shown.close()

    def _lines(self) -> RenderableType:
        return Group(self._progress, self._status) if self._status else self._progress

    def _draw(self, every: float = 0.0) -> None:
        """Draw the live lines, unless that was done less than so many seconds ago."""
        now = time.perf_counter()
        if self._live.is_started and now - self._drawn >= every:
            self._live.refresh()
            self._drawn = now

    def record_to(self, path: Path) -> None:
        """Write all lines to the end of a file: those so far too, and those that live lines stand for."""
        self._file = path
        self._write(self._unwritten)

    def say(self, line: str) -> None:
        self._write([line])
        if not self.quiet:
            shown = _folded(line, self.console.width) if is_terminal(self.console.file) else line
            self.console.print(shown, markup=False, soft_wrap=True)

    def _write(self, lines: list[str]) -> None:
        if self._file is None:
            self._unwritten += lines
        elif not self.console.quiet:  # on the first process alone
            with self._file.open("a") as file:
                file.writelines(f"{line}\n" for line in lines)

    def begin(self, steps: int, done: int) -> None:
        """Training begins, or goes on after ``done`` of its optimizer steps."""
        self._progress.update(self._run, total=steps, completed=done, visible=True)
        self._steps_before, self._begun = done, time.perf_counter()

    def epoch(self, epoch: int, epochs: int) -> None:
        name = f"{self.title} epoch {epoch + 1}/{epochs}".strip()
        self._progress.update(self._run, description=name)
        self._draw()
        self._since, self._images, self._waited = time.perf_counter(), 0, 0.0

    def loaded(self, images: int, waited: float) -> None:
        """A step begins with so many images, for which the loop waited so many seconds."""
        self._images += images
        self._waited += waited

    def step(self) -> None:
        """A step is done."""
        self._progress.advance(self._run)
        task = self._progress.tasks[0]
        assert task.total is not None
        seconds = (time.perf_counter() - self._begun) / (task.completed - self._steps_before)
        self._progress.update(self._run, left=f"{duration(seconds * (task.total - task.completed))} left")
        self._draw(OFTEN)

    def track(self, items: Iterable[Item], name: str, total: int) -> Iterator[Item]:
        """The items, while a line of its own shows how many of them are done."""
        task = self._progress.add_task(name, total=total, left="")
        self._draw()
        try:
            for item in items:
                yield item
                self._progress.advance(task)
                self._draw(OFTEN)
        finally:
            self._progress.remove_task(task)
            self._draw()

    def losses(self, epoch: int, step: int, losses: Mapping[str, float]) -> dict[str, float]:
        """Show the mean losses since the last call, and give the rates of that time."""
        seconds = max(time.perf_counter() - self._since, 1e-9)
        rates = {"images_per_second": self._images / seconds, "data_wait": self._waited / seconds}
        self._since, self._images, self._waited = time.perf_counter(), 0, 0.0
        speed = f"{rates['images_per_second']:.0f} img/s"
        if rates["data_wait"] >= WAITING:
            speed += f", {rates['data_wait']:.0%} of the time waiting for data"
        self._status.plain = "  " + "  ".join(filter(None, (summary(losses), speed, self._best)))
        self._draw()
        shown = " ".join(f"{name} {value:.4g}" for name, value in losses.items())
        line = f"epoch {epoch + 1} step {step}: {shown} | {speed}"
        if self.is_live:
            self._write([line])
        else:
            self.say(line)
        return rates

    def metrics(self, epoch: int, metrics: Mapping[str, float], metric: str, best: float) -> None:
        """Show the metrics after an epoch, and the best so far of the one by which students are chosen."""
        self._best = f"best {metric} {best:.4f}"
        self.say(f"epoch {epoch + 1}: {show(metrics, metric)} ({self._best})")


def summary(losses: Mapping[str, float]) -> str:
    """The task's loss and the sum of all others, in a line of bounded length.

    >>> summary({"task": 0.5, "CWD:backbone/8": 0.25, "CWD:backbone/16": 0.125})
    'loss 0.875 = task 0.5 + distillation 0.375'
    """
    total = sum(losses.values())
    if len(losses) == 1:
        return f"loss {total:.4g}"
    return f"loss {total:.4g} = task {losses['task']:.4g} + distillation {total - losses['task']:.4g}"


def show(metrics: Mapping[str, float], first: str) -> str:
    """Some metrics in a line: the one that counts, others that are not of one class (no space in their name), the loss.

    >>> show({"box_ap": 0.3, "mask_ap": 0.25, "mask_ap50": 0.5, "iou car": 0.1, "mask_ap75": 0.2}, "mask_ap")
    'mask_ap 0.2500 box_ap 0.3000 mask_ap50 0.5000'
    >>> show({"miou": 0.25, "pixel_accuracy": 0.5, "loss": 1.2345, "iou car": 0.1}, "miou")
    'miou 0.2500 pixel_accuracy 0.5000 loss 1.23'
    """
    others = [name for name in metrics if name not in (first, "loss") and " " not in name]
    shown = [f"{name} {metrics[name]:.4f}" for name in (first, *others[:OTHERS])]
    return " ".join([*shown, *(f"loss {metrics['loss']:.3g}" for _ in metrics.keys() & {"loss"})])


def duration(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> duration(7384.2), duration(75)
    ('2:03:04', '1:15')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _folded(text: str, width: int) -> str:
    """A text in lines that end between words; what is longer than a line, such as a path, stays whole to be copied."""
    parts = text.splitlines()
    return "\n".join(fill(part, width, break_long_words=False, break_on_hyphens=False) for part in parts)


def wide_console(quiet: bool = False) -> Console:
    """A console that does not fold tables to 80 columns where the output is no terminal."""
    console = Console(quiet=quiet, highlight=False)
    return console if is_terminal(console.file) else Console(quiet=quiet, highlight=False, width=160)
