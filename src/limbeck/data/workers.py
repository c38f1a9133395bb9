"""What a loader's worker process says of an error."""

from __future__ import annotations

import re

# What torch.utils.data makes of an exception in a worker: a traceback as text, and the message after its last line.
WRAPPED = re.compile(r"Caught (\w+) in DataLoader worker process .*^(?:\w+\.)*\1: (.*)", re.DOTALL | re.MULTILINE)


def as_raised(error: Exception) -> Exception:
    """The error that a dataset raised, without the traceback that ``DataLoader`` writes into its message.

    >>> as_raised(ValueError("a.jpg cannot be read"))
    ValueError('a.jpg cannot be read')
    """
    found = WRAPPED.match(str(error))
    return type(error)(found[2].strip()) if found else error
