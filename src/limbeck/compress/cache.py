"""What slices take and give, kept on disk: the original runs once, and each slice is trained apart from all others."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator, Sequence, Sized
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from limbeck.compress.passes import Batches, on_device_of
from limbeck.compress.processes import Processes
from limbeck.compress.runs import Call, Runs, copied
from limbeck.compress.training import SliceTrainer, SliceTraining

Say = Callable[[str], None]


class Cache:
    """The inputs and outputs of the slices of a network for all batches, in a folder that all processes see.

    Args:
        folder: Empty, or made here.
        slices: Their paths, in the order in which they are claimed.
    """

    def __init__(self, folder: Path, slices: Sequence[str]):
        self.folder, self.slices = folder, list(slices)

    def fill(self, original: nn.Module, data: Batches, processes: Processes, say: Say) -> None:
        """Run the original over this process's part of the batches; say first how much the disk is to take.

        Raises:
            ValueError: The folder holds something, or its disk has too little space.
        """
        runs = Runs(original)
        if processes.rank == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            if any(self.folder.iterdir()):
                raise ValueError(f"{self.folder} is to take the slices' activations, but is not empty: name another")
            self._check_space(runs, data, say)
        processes.wait()
        for number, batch in itertools.islice(enumerate(data), processes.rank, None, processes.count):
            for path, calls in self._calls(runs, batch).items():
                torch.save(calls, self.folder / f"{self.slices.index(path)}-{number}.pt")
        processes.wait()

    def claim(self) -> Iterator[str]:
        """Slices that no other process has taken, one after the other, until none is left."""
        for index, path in enumerate(self.slices):
            try:
                os.close(os.open(self.folder / f"{index}.taken", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                continue
            yield path

    def batches_of(self, path: str) -> list[Path]:
        """Files of what a slice took and gave in each of its calls, batch by batch."""
        files = self.folder.glob(f"{self.slices.index(path)}-*.pt")
        return sorted(files, key=lambda file: int(file.stem.partition("-")[2]))

    def drop(self, path: str) -> None:
        """Give back the space that a slice takes."""
        for file in self.batches_of(path):
            file.unlink()

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder)

    def _calls(self, runs: Runs, batch: Any) -> dict[str, list[tuple[Call, Any]]]:
        inputs: dict[str, Call] = {}
        calls: dict[str, list[tuple[Call, Any]]] = {path: [] for path in self.slices}

        def keep(path: str, output: Any) -> None:
            calls[path].append(tree_map_only(Tensor, Tensor.cpu, (inputs.pop(path), copied(output))))

        runs.run(self.slices, batch, before=inputs.__setitem__, after=keep)
        return calls

    def _check_space(self, runs: Runs, data: Batches, say: Say) -> None:
        batch = self._calls(runs, next(iter(data)))
        size = sum(leaf.nbytes for leaf in tree_leaves(batch) if isinstance(leaf, Tensor))
        free = shutil.disk_usage(self.folder).free
        if not isinstance(data, Sized):
            say(f"{self.folder} takes {size / 1e6:.3g} MB for each batch")
            return
        size *= len(data)
        if size > free:
            raise ValueError(f"activations take {size / 1e9:.3g} GB, but {self.folder} has {free / 1e9:.3g} GB left")
        say(f"{self.folder} takes {size / 1e9:.3g} GB")


def train_cached(
    training: SliceTraining, cache: Cache, data: Batches, epochs: int, processes: Processes, say: Say
) -> dict[str, SliceTrainer]:
    """Fill a cache, and train from it slices until none is left; those that this process has trained."""
    cache.fill(training.original, data, processes, say)
    trained: dict[str, SliceTrainer] = {}
    for path in cache.claim():
        trained[path] = training.trainers[path]
        _train_slice(cache, trained[path], epochs)
        cache.drop(path)
        say(f"{path}: error {trained[path].error:.4g}")
    processes.wait()
    if processes.rank == 0:
        cache.close()
    return trained


def _train_slice(cache: Cache, trainer: SliceTrainer, epochs: int) -> None:
    batches = cache.batches_of(trainer.path)
    for epoch in range(epochs):
        for step, file in enumerate(batches):
            trainer.set_progress((epoch + step / len(batches)) / epochs)
            stored = torch.load(file, map_location="cpu", weights_only=True, mmap=True)  # read as it is needed
            for (args, kwargs), output in on_device_of(trainer.module, stored):
                trainer.step(trainer.module(*args, **kwargs), output)
        trainer.finish_epoch()
        if trainer.is_done:
            break
