"""The batches of a run: those of each step, those to validate on, and an example to build from."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from traceback import clear_frames
from typing import Any

from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch.utils.data import DataLoader, Dataset, Subset

from limbeck.data.order import TrainOrder, evenly
from limbeck.data.workers import as_raised
from limbeck.training.display import Display
from limbeck.training.recipe import EXAMPLES, Recipe
from limbeck.training.signals import outlive_signals


class Loaders:
    """Batches of a recipe's data, the share of this process, on its device."""

    def __init__(self, recipe: Recipe, accelerator: Accelerator, display: Display):
        self.recipe, self.accelerator, self.display = recipe, accelerator, display
        self.steps_per_epoch = len(recipe.train_data) // recipe.budget.batch_size  # type: ignore[arg-type]
        self.total_steps = min(recipe.budget.epochs * self.steps_per_epoch, recipe.budget.max_steps or sys.maxsize)
        mine = range(accelerator.process_index, len(recipe.val_data), accelerator.num_processes)  # type: ignore[arg-type]
        batch_size = recipe.val_batch_size or recipe.budget.batch_size
        self._val_loader = self._loader(Subset(recipe.val_data, mine), batch_size=batch_size)
        self._told: set[str] = set()  # of samples that were skipped
        self._train_loader(epoch=0)  # tells of a batch size that does not fit

    def example(self) -> Any:
        """A batch of the first training images, or of those that the recipe names: no more than there is memory for."""
        budget = self.recipe.budget
        at_once = budget.batch_size // (budget.accumulate * self.accelerator.num_processes)
        indices = (self.recipe.examples or range(EXAMPLES))[:at_once]
        batch = self.recipe.collate([self.recipe.train_data[0, index] for index in indices])
        return send_to_device(batch, self.accelerator.device)

    def steps(self, epoch: int, step: int) -> Iterator[list[Any]]:
        """The micro-batches, not yet on the device, of each step that is left in an epoch when ``step`` are done."""
        done = step - epoch * self.steps_per_epoch
        self.display.epoch(epoch, self.recipe.budget.epochs)
        loader = handed_over(self._train_loader(epoch, done))
        for _ in range(done, min(self.steps_per_epoch, self.total_steps - epoch * self.steps_per_epoch)):
            asked = time.perf_counter()
            batches = [next(loader) for _ in range(self.recipe.budget.accumulate)]
            self.display.loaded(self.recipe.budget.batch_size, time.perf_counter() - asked)
            yield batches
            self.display.step()

    def first(self) -> Iterator[Any]:
        """The micro-batches of the first epoch, not yet on the device and not counted as steps."""
        return islice(handed_over(self._train_loader(0)), self.steps_per_epoch * self.recipe.budget.accumulate)

    def validation(self, purpose: str) -> Iterator[Any]:
        """The validation batches, while the display shows how far they are."""
        shown = self.display.track(handed_over(self._val_loader), purpose, len(self._val_loader))
        return (send_to_device(batch, self.accelerator.device) for batch in shown)

    def some_validation(self, count: int) -> list[Any]:
        """So many batches of one validation image, spread over all of them; fewer where there are fewer."""
        indices = evenly(len(self.recipe.val_data), count)  # type: ignore[arg-type]
        batches = (self.recipe.collate([self.recipe.val_data[index]]) for index in indices)
        return [send_to_device(batch, self.accelerator.device) for batch in batches]

    def skipped(self) -> list[str]:
        """What is new about samples of which others took the place."""
        readers = [data.reader for data in (self.recipe.train_data, self.recipe.val_data) if hasattr(data, "reader")]
        news = [note for reader in readers for note in reader.notes() if note not in self._told]
        self._told.update(news)
        return news

    def _train_loader(self, epoch: int, start: int = 0) -> DataLoader[Any]:
        budget = self.recipe.budget
        order = TrainOrder(
            len(self.recipe.train_data),  # type: ignore[arg-type]
            budget.batch_size,
            epoch=epoch,
            seed=budget.seed,
            start=start,
            accumulate=budget.accumulate,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
        )
        return self._loader(self.recipe.train_data, batch_sampler=order)

    def _loader(self, data: Any, **options: Any) -> DataLoader[Any]:
        pinned = self.accelerator.device.type == "cuda"
        return DataLoader(
            Telling(data),
            num_workers=self.recipe.budget.workers,
            collate_fn=Collate(self.recipe.collate),
            pin_memory=pinned,
            worker_init_fn=outlive_signals,
            **options,
        )


@dataclass(frozen=True)
class Failure:
    """A sample that could not be made, or a batch with one: an error as it was raised, not wrapped by the loader."""

    error: Exception


class Telling(Dataset[Any]):
    """A dataset whose errors come to the train loop as they are."""

    def __init__(self, data: Any):
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, key: Any) -> Any:
        try:
            return self.data[key]
        except (ValueError, OSError) as error:  # what a user can mend
            return Failure(error)


@dataclass(frozen=True)
class Collate:
    """Makes a batch of samples, or gives the first failure among them."""

    collate: Callable[[list[Any]], Any]

    def __call__(self, samples: list[Any]) -> Any:
        failures = [sample for sample in samples if isinstance(sample, Failure)]
        return failures[0] if failures else self.collate(samples)


def handed_over(loader: Iterable[Any]) -> Iterator[Any]:
    """The batches of a loader; the error of one with a sample that could not be made is raised."""
    try:
        for batch in loader:
            if isinstance(batch, Failure):
                break
            yield batch
        else:
            return
    except (ConnectionError, EOFError) as error:  # a worker was killed while it handed a batch over
        time.sleep(1)  # in which torch learns of it, and raises
        raise RuntimeError("DataLoader worker was killed") from error
    raise batch.error


@contextmanager
def telling_of_workers() -> Iterator[None]:
    """Say in a sentence what a loader process met, or that it was killed, of which torch tells at any moment."""
    try:
        yield
    except ValueError as error:
        raise as_raised(error) from None
    except RuntimeError as error:
        if "DataLoader worker" not in str(error) or not ("killed" in str(error) or "exited" in str(error)):
            raise
        clear_frames(error.__traceback__)  # of the loader, which would raise again whenever a child process ends
        raise ChildProcessError(
            f"a loader process was killed ({str(error).strip()}), as happens where memory runs out: try fewer "
            "--workers or a smaller --batch-size, and go on with --resume"
        ) from None
