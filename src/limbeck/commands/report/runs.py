"""Runs as a page compares them: what each wrote down, and which are one way to train with several seeds."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean
from typing import Any

from limbeck.commands.record import options
from limbeck.models.run_folder import RunFolder
from limbeck.training.compare import difference

METRICS = ("mask_ap", "box_ap", "miou", "top1")  # by which students are chosen; of one task's own, the first it gives
COUNTERS = ("kind", "step", "epoch")
NO_LOSSES = (*COUNTERS, "images_per_second", "data_wait", "learning_rate")
SEED = re.compile(r"(.*?)[-_. ]?(?:seed)?[-_]?(\d+)")  # how the folder of one of several seeds ends

Entry = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """What a run folder holds for a page."""

    folder: RunFolder

    @cached_property
    def log(self) -> list[Entry]:
        return lines_of(self.folder.log)

    @cached_property
    def classes(self) -> list[Entry]:
        return lines_of(self.folder.classes)

    @cached_property
    def record(self) -> dict[str, Any]:
        """The arguments, versions and hashes; empty where Python started the run."""
        return self.folder.read_record() if self.folder.record.is_file() else {}

    @property
    def options(self) -> dict[str, Any]:
        """What a command started it with, by name."""
        return options(self.record.get("arguments", {}))

    @cached_property
    def matches(self) -> list[Entry]:
        matches: list[Entry] = json.loads(self.folder.matches.read_text()) if self.folder.matches.is_file() else []
        return matches

    @property
    def name(self) -> str:
        return self.folder.path.resolve().name

    def entries(self, kind: str) -> list[Entry]:
        return [entry for entry in self.log if entry["kind"] == kind]

    @cached_property
    def metric(self) -> str | None:
        """The metric by which students are chosen; ``None`` before the first evaluation."""
        measured = self.entries("val") or self.entries("teacher")
        named = [name for name in measured[-1] if name not in COUNTERS] if measured else []
        return next((name for name in (*METRICS, *named) if name in named), None)

    @property
    def value(self) -> float | None:
        """The metric of the newest evaluation: not of the best, which is chosen on what it is measured with."""
        return self._newest("val")

    @property
    def teacher(self) -> float | None:
        return self._newest("teacher")

    def _newest(self, kind: str) -> float | None:
        measured = self.entries(kind)
        return measured[-1].get(self.metric) if measured and self.metric is not None else None

    @cached_property
    def losses(self) -> list[str]:
        """The names of the losses of its matches."""
        names = dict.fromkeys(name for entry in self.entries("train") for name in entry)
        return [name for name in names if name not in (*NO_LOSSES, "task")]

    @property
    def is_distilled(self) -> bool:
        return bool(self.losses or self.matches or self.record.get("command") == "distill")

    @property
    def seed(self) -> int:
        found = SEED.fullmatch(self.name)
        of_name = int(found[2]) if found else 0
        return int(self.options.get("seed", of_name))

    @property
    def stem(self) -> str:
        """Its name without the seed."""
        found = SEED.fullmatch(self.name)
        is_named_by_seed = found is not None and int(found[2]) == self.seed
        return (found[1] if found and is_named_by_seed else self.name) or self.folder.path.resolve().parent.name

    @property
    def state(self) -> str:
        """What is to be said of a run that is not finished; empty of one that is."""
        if self.folder.is_finished():
            return ""
        step = self.log[-1]["step"] if self.log else 0
        return f"{self.name} is not finished: it was at step {step:,} when this page was made"

    def found(self, kind: str = "student") -> Entry | None:
        """The newest figures class by class."""
        return next((entry for entry in reversed(self.classes) if entry["kind"] == kind), None)


@dataclass(frozen=True)
class Way:
    """One way to train, over seeds."""

    name: str
    runs: Sequence[Run]

    @property
    def values(self) -> dict[int, float]:
        """The metric by seed."""
        return {run.seed: run.value for run in self.runs if run.value is not None}

    @property
    def is_distilled(self) -> bool:
        return any(run.is_distilled for run in self.runs)

    def gain(self, baseline: Way) -> tuple[float, float | None, int] | None:
        """Mean difference in points, half of its 95 % interval, pairs; without an interval of one pair."""
        return paired(self.values, baseline.values)


@dataclass(frozen=True)
class Comparison:
    """What a page is about: ways to train, the student alone first where it is among them."""

    ways: Sequence[Way]

    @property
    def baseline(self) -> Way | None:
        return self.ways[0] if len(self.ways) > 1 and not self.ways[0].is_distilled else None

    @property
    def others(self) -> Sequence[Way]:
        """The ways that are compared with the baseline, or all."""
        return self.ways[1:] if self.baseline else self.ways

    @property
    def runs(self) -> list[Run]:
        return [run for way in self.ways for run in way.runs]

    @property
    def metric(self) -> str:
        return next((run.metric for run in self.runs if run.metric is not None), "metric")

    @property
    def teacher(self) -> float | None:
        return next((run.teacher for run in self.runs if run.teacher is not None), None)


def compared(folders: Iterable[Path]) -> Comparison:
    """Runs, put together by what they were started with but for the seed.

    Raises:
        ValueError: A folder is no run, or is named twice.
    """
    grouped: dict[str, list[Run]] = {}
    for path in folders:
        run = Run(RunFolder(path))
        if not (run.folder.log.is_file() or run.folder.record.is_file()):
            raise ValueError(f"{path} is no run: it has neither metrics.jsonl nor recipe.json")
        grouped.setdefault(f"{run.stem} {started_with(run)}", []).append(run)
    stems = [runs[0].stem for runs in grouped.values()]
    names = [
        stem if stems.count(stem) == 1 else runs[0].name for stem, runs in zip(stems, grouped.values(), strict=True)
    ]
    ways = []
    for name, runs in zip(without_common_words(names), grouped.values(), strict=True):
        runs.sort(key=lambda run: run.seed)
        if len({run.seed for run in runs}) < len(runs):
            named = ", ".join(str(run.folder) for run in runs)
            raise ValueError(f"{named} have one seed and one way to train; name each run once")
        ways.append(Way(name, runs))
    return Comparison(sorted(ways, key=lambda way: way.is_distilled))


def without_common_words(names: list[str]) -> list[str]:
    """Names without the words with which all of them begin.

    >>> without_common_words(["cells-alone", "cells-all-layers"]), without_common_words(["alone"])
    (['alone', 'all-layers'], ['alone'])
    """
    if len(names) < 2:
        return names
    shared = os.path.commonprefix(names)  # noqa: RUF071  letter by letter is meant
    length = max(shared.rfind(each) for each in "-_ ./") + 1
    return [name[length:] for name in names] if all(len(name) > length for name in names) else names


def started_with(run: Run) -> str:
    return json.dumps({**run.options, "seed": None}, sort_keys=True, default=str)


def lines_of(path: Path) -> list[Entry]:
    """The entries of a log, but for a last line that a kill cut short."""
    entries = []
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            entries.append(json.loads(line))
        except ValueError:
            break
    return entries


def paired(values: dict[int, float], baseline: dict[int, float]) -> tuple[float, float | None, int] | None:
    """Mean of the differences by seed in points, half of the 95 % interval (``None`` of one pair), and the pairs."""
    seeds = sorted(values.keys() & baseline.keys())
    if not seeds:
        return None
    pairs = [[100 * each[seed] for seed in seeds] for each in (values, baseline)]
    if len(seeds) == 1:
        return mean(pairs[0]) - mean(pairs[1]), None, 1
    return *difference(*pairs), len(seeds)
