"""A loader's worker processes: how many are usual, and what one says of an error."""

from __future__ import annotations

import os
import re

# What torch.utils.data makes of an exception in a worker: a traceback as text, and the message after its last line.
WRAPPED = re.compile(r"Caught (\w+) in DataLoader worker process .*^(?:\w+\.)*\1: (.*)", re.DOTALL | re.MULTILINE)


def usual_workers() -> int:
    """Two, or one where this process may use one core only: torch warns of more, epoch after epoch."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()  # the first on Linux
    return min(2, cores or 1)


USUAL_WORKERS = usual_workers()


def as_raised(error: Exception) -> Exception:
    """The error that a dataset raised, without the traceback that ``DataLoader`` writes into its message.

    >>> as_raised(ValueError("a.jpg cannot be read"))
    ValueError('a.jpg cannot be read')
    """
    found = WRAPPED.match(str(error))
    return type(error)(found[2].strip()) if found else error
