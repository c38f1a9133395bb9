"""SIGTERM and Ctrl-C: end after the step at hand."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator


class StopRequest:
    """Whether somebody asked for the end, on any process."""

    def __init__(self, accelerator: Accelerator):
        self.accelerator = accelerator
        self._made = self._agreed = False

    @property
    def agreed(self) -> bool:
        """Whether to stop now: on many processes all of them, once they have agreed."""
        return self._made if self.accelerator.num_processes == 1 else self._agreed

    def agree(self) -> None:
        """Let all processes, which call this at the same step, come to the same answer."""
        if self.accelerator.num_processes > 1:
            made = torch.tensor(float(self._made), device=self.accelerator.device)
            self._agreed = bool(self.accelerator.reduce(made, "sum").item())

    @contextmanager
    def watch(self) -> Iterator[StopRequest]:
        """Take SIGTERM and Ctrl-C as a request while this lasts; a second one ends the process at once."""

        def request(number: int, _: Any) -> None:
            self._made = True
            signal.signal(number, signal.default_int_handler)

        numbers = (signal.SIGTERM, signal.SIGINT) if threading.current_thread() is threading.main_thread() else ()
        before = {number: signal.signal(number, request) for number in numbers}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
