"""SIGTERM, Ctrl-C, a closed terminal, and the end of the time: stop after the step at hand."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator

from limbeck.data.progress import is_terminal

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
GRACE = 20  # seconds
TIME_IS_UP = 124  # as of the command timeout


class StopRequest:
    """Whether somebody asked for the end, on any process.

    Args:
        accelerator: Of the run.
        max_hours: After which the end is asked for.
    """

    def __init__(self, accelerator: Accelerator, max_hours: float | None = None):
        self.accelerator = accelerator
        self._end = time.monotonic() + max_hours * 3600 if max_hours is not None else float("inf")
        self._own = self._agreed = 0  # the status that the process is to end with; 0: nobody asked for the end

    @property
    def status(self) -> int:
        """The status to end with, or 0 to go on: on many processes the same, once they have agreed."""
        if not self._own and time.monotonic() > self._end:
            self._own = TIME_IS_UP
        return self._own if self.accelerator.num_processes == 1 else self._agreed

    def agree(self) -> None:
        """Let all processes, which call this at the same step, come to the same answer."""
        if self.accelerator.num_processes > 1:
            own = torch.tensor(float(self.status or self._own), device=self.accelerator.device)
            self._agreed = int(self.accelerator.gather(own).max().item())

    @contextmanager
    def watch(self) -> Iterator[StopRequest]:
        """Take signals as requests while this lasts; a second one ends the process at once."""

        def request(number: int, _: Any) -> None:
            self._own = 128 + number
            signal.signal(number, _interrupt)
            if number == getattr(signal, "SIGHUP", None) and is_terminal(sys.stdout):  # of a terminal that is gone
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, sys.stdout.fileno())
                os.dup2(nowhere, sys.stderr.fileno())

        with _handled_by(request, SIGNALS):
            yield self


@contextmanager
def ending_in_order() -> Iterator[None]:
    """While this lasts, have the other signals end the process as Ctrl-C does: what is temporary is removed."""

    def end(number: int, _: Any) -> None:
        signal.signal(number, signal.SIG_IGN)  # the removal is not to be broken off
        raise SystemExit(128 + number)

    with _handled_by(end, [number for number in SIGNALS if number != signal.SIGINT]):
        yield


@contextmanager
def _handled_by(handle: Callable[[int, Any], None], numbers: Sequence[int]) -> Iterator[None]:
    """Have a function called at signals while this lasts, but not at those that are ignored, as nohup has it."""
    if threading.current_thread() is not threading.main_thread():  # where Python takes no handlers
        numbers = []
    before = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, _: Any) -> None:
    """End at once; a third time, even where Python does not get to run."""
    signal.signal(number, signal.SIG_DFL)
    raise KeyboardInterrupt


def outlive_signals(_: int) -> None:
    """In a loader process: who stops a job signals all its processes, but the run still takes the step at hand."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "alarm"):  # but a process that is left over when Python ends is sent SIGTERM, and waited for
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE))
