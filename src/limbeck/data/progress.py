"""How far a long preparation is, on a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


def track(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """The items as they come, with a bar on standard error while they do, if that is a terminal.

    Args:
        items: Of what is done one by one.
        what: Said beside the bar.
        total: Number of items.
    """
    if not is_terminal(sys.stderr) or os.environ.get("RANK", "0") != "0":
        yield from items
        return
    from rich.console import Console
    from rich.progress import track as with_bar

    yield from with_bar(items, what, total, transient=True, console=Console(stderr=True))


def is_terminal(file: Any) -> bool:
    """Whether a person sees what is written there: not where there is no file, as in a program without a console.

    What a user's program has put in the place of ``sys.stdout``, to write to a file too, may have no ``isatty``.
    """
    isatty = getattr(file, "isatty", None)
    return isatty is not None and bool(isatty())
