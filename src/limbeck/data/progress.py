"""How far a long preparation is, on a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def track(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """The items as they come, with a bar on standard error while they do, if that is a terminal.

    Args:
        items: Of what is done one by one.
        what: Said beside the bar.
        total: Number of items.
    """
    if not sys.stderr.isatty() or os.environ.get("RANK", "0") != "0":
        yield from items
        return
    from rich.console import Console
    from rich.progress import track as with_bar

    yield from with_bar(items, what, total, transient=True, console=Console(stderr=True))
