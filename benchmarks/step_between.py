"""A distilled step of two checkouts of limbeck, in turns in one run: what a change costs.

    git worktree add ../before REVISION
    python benchmarks/step_between.py --before ../before --after . --rounds 40
    python benchmarks/step_between.py --before ../before --after . --teacher resnet50 --student mobilenetv2_100

Each checkout runs its own ``benchmarks/step.py`` in a process of its own; the machine's changes of speed meet both.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from statistics import median, quantiles

import tyro
from measure import circumstances
from step import DISTILLED, Pair

STEPS = f"""
import sys, time, torch
sys.path.insert(0, "benchmarks")
from step import Pair, step
pair = Pair(**eval(sys.argv[1]))
torch.set_num_threads(pair.threads)
run = step(pair, {DISTILLED!r})
for _ in range(2):
    run()
print("ready", flush=True)
for _ in sys.stdin:
    started = time.perf_counter()
    run()
    print(time.perf_counter() - started, flush=True)
"""


def main(before: Path, after: Path, pair: tyro.conf.OmitArgPrefixes[Pair]) -> None:
    """Print the time of a step after over one before: median and quartiles of the pairs.

    Args:
        before, after: Folders of the two checkouts.
        pair: The models, and how many pairs of steps.
    """
    processes = [start(folder, pair) for folder in (before, after)]
    times = []
    for index in range(pair.rounds):
        order = processes if index % 2 else processes[::-1]
        taken = {process: seconds_of(process) for process in order}
        times.append([taken[process] for process in processes])
    for process in processes:
        process.communicate()
    ratios = [second / first for first, second in times]
    low, _, high = quantiles(ratios)
    print(circumstances())
    names = [described(folder) for folder in (before, after)]
    for name, column in zip(names, zip(*times, strict=True), strict=True):
        print(f"{name:10} {1e3 * median(column):8.1f} ms")
    print(f"after / before: {median(ratios):.3f} (quartiles {low:.3f} and {high:.3f} of {pair.rounds} pairs)")


def start(folder: Path, pair: Pair) -> subprocess.Popen[str]:
    folder = folder.resolve()
    # An older checkout may not have every option; one that is not at its default is passed all the same, and refused.
    changed = {each.name: value for each in fields(pair) if (value := getattr(pair, each.name)) != each.default}
    process = subprocess.Popen(
        [sys.executable, "-c", STEPS, repr(changed)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder / "src")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    answer = process.stdout.readline() if process.stdout else ""
    if answer.strip() != "ready":
        raise RuntimeError(f"{folder} could not make a step: {answer}")
    return process


def seconds_of(process: subprocess.Popen[str]) -> float:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def described(folder: Path) -> str:
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    tyro.cli(main)
