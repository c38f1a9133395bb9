"""Time and peak memory of a step, on CPU and CUDA."""

from __future__ import annotations

import multiprocessing
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from limbeck.models.memory import most_allocated

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Step = Callable[[], object]


def interleaved(steps: dict[str, Step], rounds: int) -> dict[str, list[float]]:
    """Seconds of each step, in every round one of each, so that a machine's changes of speed meet all of them."""
    for step in steps.values():
        step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            synchronise()
            started = time.perf_counter()
            step()
            synchronise()
            times[name].append(time.perf_counter() - started)
    return times


def ratio(times: dict[str, list[float]], name: str, *parts: str) -> float:
    """Median over the rounds of one time over the sum of others."""
    sums = [sum(row) for row in zip(*(times[part] for part in parts), strict=True)]
    return median(value / whole for value, whole in zip(times[name], sums, strict=True))


def peak_memory(make: Callable[[], Step]) -> int:
    """Bytes of tensors that a step takes at most beyond what was there before it, as torch allocates them.

    On a CPU in a process of its own; a GPU's allocator counts exactly in any.
    """
    if DEVICE == "cuda":
        return _peak(make, torch.get_num_threads())
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_peak, (make, torch.get_num_threads()))


def _peak(make: Callable[[], Step], threads: int) -> int:
    torch.set_num_threads(threads)
    step = make()
    step()  # momentum and other state that stays is made in the first
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    return most_allocated(step)


def synchronise() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def circumstances() -> str:
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return (
        f"command: python {' '.join(sys.argv)}\n"
        f"commit {commit.stdout.strip()}, torch {torch.__version__}, {torch.get_num_threads()} threads, {machine()}"
    )


def machine() -> str:
    if DEVICE == "cuda":
        return torch.cuda.get_device_name()
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return models[0].partition(": ")[2] if models else platform.processor()
