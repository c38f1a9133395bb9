"""How long a call takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch


def timed(run: Callable[[], Any]) -> float:
    """Seconds of a call, until the device is done with it."""
    wait_for_device()
    started = time.perf_counter()
    run()
    wait_for_device()
    return time.perf_counter() - started


def wait_for_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
