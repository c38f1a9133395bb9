"""What the comparisons of segmenters and of detectors share."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from measure import circumstances

from limbeck.training.compare import compare, table
from limbeck.training.recipe import Budget, Recipe


class Quality(Protocol):
    """What is compared."""

    out: Path
    teacher: str | None
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    threads: int

    def make_teacher(self) -> Recipe: ...
    def alone(self, seed: int) -> Recipe: ...
    def distilled(self, teacher: str, method: str, seed: int) -> Recipe: ...


def budget_of(default: Budget, epochs: int, learning_rate: float, seed: int) -> Budget:
    """The task's defaults for teacher and students, by AdamW: nothing else is chosen here."""
    return replace(
        default,
        epochs=epochs,
        batch_size=8,
        optimizer="adamw",
        learning_rate=learning_rate,
        workers=1,
        evaluate_every=epochs,
        seed=seed,
    )


def run(quality: Quality, metric: str) -> None:
    """Train what is not there yet, and print the table."""
    started = time.time()
    torch.set_num_threads(quality.threads)
    print(circumstances())
    teacher = quality.teacher
    if teacher is None:
        compare({"teacher": lambda seed: quality.make_teacher()}, [0], quality.out, metric=metric)
        teacher = str(quality.out / "teacher-0")
    arms = {"alone": quality.alone, **{name: partial(quality.distilled, teacher, name) for name in quality.methods}}
    results = compare(arms, quality.seeds, quality.out, metric=metric)
    print(f"\n{table(results)}\n\nteacher {teacher}; {(time.time() - started) / 60:.0f} minutes")
