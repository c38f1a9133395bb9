"""SIGTERM and Ctrl-C: end after the step at hand."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class StopRequest:
    """Whether somebody asked for the end."""

    made = False

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Take SIGTERM and Ctrl-C as a request while this lasts; a second one ends the process at once."""

        def request(number: int, _: Any) -> None:
            self.made = True
            signal.signal(number, signal.default_int_handler)

        numbers = (signal.SIGTERM, signal.SIGINT) if threading.current_thread() is threading.main_thread() else ()
        before = {number: signal.signal(number, request) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
