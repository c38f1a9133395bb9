"""``limbeck report``: one page about runs, which needs neither network nor server."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from limbeck.commands.arguments import call
from limbeck.commands.words import Runs

NEEDED = ("altair", "jinja2", "vl_convert", "scipy")


def report(arguments: list[str]) -> None:
    """One page about runs."""
    call(_report, "limbeck report", arguments)


def _report(runs: Runs, /, out: Path | None = None) -> None:
    """Write one HTML page about runs: what was gained, how the training went, features, classes, cost.

    Args:
        runs: Run folders: a distilled student; also the student alone and other methods, each with several seeds.
        out: The page; by default report.html in the first run's folder.
    """
    if not runs:
        raise ValueError("limbeck report: name the folder of a run")
    if lacking := missing():
        raise ValueError(f"limbeck report needs {', '.join(lacking)}: pip install 'limbeck[report]'")
    print(f"report: {write_report(runs, out)}")


def missing() -> list[str]:
    """The packages that a page needs and that are not installed."""
    return [name for name in NEEDED if find_spec(name) is None]


def import_altair() -> None:
    """Import altair also for a user without a home folder, as in a container: it asks for one when it is imported."""
    if has_none := os.path.expanduser("~") == "~":
        os.environ["HOME"] = os.curdir
    try:
        import altair  # noqa: F401
    finally:
        if has_none:
            del os.environ["HOME"]


def write_report(runs: Sequence[Path], out: Path | None = None) -> Path:
    """Write a page about runs, and give its path.

    Raises:
        ValueError: A folder is no run.
    """
    import_altair()
    from limbeck.commands.report.page import page_of
    from limbeck.commands.report.runs import compared
    from limbeck.training.checkpoint import write_atomically

    comparison = compared(runs)
    path = out or runs[0] / "report.html"
    write_atomically(path, page_of(comparison).encode())
    return path
