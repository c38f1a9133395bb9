"""Lines that are logged while a terminal shows live lines."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.live import Live


@contextmanager
def logged_above(live: Live) -> Iterator[None]:
    """Show live lines, and have what is logged meanwhile printed above them.

    They take the place of ``sys.stdout`` and ``sys.stderr``. A handler that was made before still has the terminal
    itself, as that of ``logging.basicConfig`` in a user's file, and those of transformers and torch: what it writes
    there would be gone with the next drawing.
    """
    before = [sys.stdout, sys.stderr]
    with live:
        above = [sys.stdout, sys.stderr]
        held = [(handler, before.index(handler.stream)) for handler in _handlers() if handler.stream in before]
        for handler, index in held:
            handler.setStream(above[index])
        try:
            yield
        finally:
            for handler, index in held:
                handler.setStream(before[index])


def _handlers() -> list[logging.StreamHandler[Any]]:
    """Of all loggers, those that write to a stream."""
    known = [logging.root, *logging.root.manager.loggerDict.values()]
    handlers = dict.fromkeys(handler for logger in known for handler in getattr(logger, "handlers", ()))
    return [each for each in handlers if isinstance(each, logging.StreamHandler) and each.stream is not None]
