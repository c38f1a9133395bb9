"""The loop of slice-wise training: steps in the order of the train loop, checkpoints, and stops to be resumed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate.utils import send_to_device

from limbeck.compress.training import SliceTraining
from limbeck.core.modules import Example
from limbeck.training.checkpoint import load_checkpoint, save_checkpoint
from limbeck.training.display import Display
from limbeck.training.loaders import Loaders
from limbeck.training.recipe import Recipe
from limbeck.training.signals import StopRequest


@dataclass
class Sample:
    """Training images for the closed forms: the first that a run would see, kept as they were loaded.

    Args:
        recipe: Whose task says what the model is called with.
        batches: Of samples.
    """

    recipe: Recipe
    batches: list[Any]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Example]:
        return (self.recipe.task.inputs(batch) for batch in self.batches)


def sample(recipe: Recipe, loaders: Loaders, images: int) -> Sample:
    """At least so many images, or all that an epoch has."""
    batches: list[Any] = []
    for batch in loaders.first():
        batches.append(send_to_device(batch, loaders.accelerator.device))
        if len(batches) * recipe.budget.batch_size >= images:
            break
    return Sample(recipe, batches)


def train_slices(
    recipe: Recipe, training: SliceTraining, loaders: Loaders, folder: Path, display: Display, stop: StopRequest
) -> int:
    """Train slices to the end, or until somebody asks for a stop; from the newest checkpoint, if there is one.

    Args:
        recipe: Its data, task and budget; not its student.
        training: The slices.
        loaders: Of the recipe.
        folder: For checkpoints, and ``errors.jsonl`` with the error of every slice after each epoch.
        display: Shows how far it is.
        stop: Who may ask for a stop.

    Returns:
        0 once all is done, or the status to end with.
    """
    budget, step, epoch = recipe.budget, 0, 0
    if found := load_checkpoint(folder):
        path, stored, damaged = found
        for line in damaged:
            display.say(line)
        training.load_state_dict(stored["slices"])
        step, epoch = stored["step"], stored["epoch"]
        display.say(f"resumed from {path}: step {step}, epoch {epoch + 1} of the slices")

    def save() -> None:
        save_checkpoint(folder, step, {"step": step, "epoch": epoch, "slices": training.state_dict()})

    display.begin(loaders.total_steps, step)
    while epoch < budget.epochs and not training.is_done:
        for (batch,) in loaders.steps(epoch, step):
            inputs = recipe.task.inputs(send_to_device(batch, loaders.accelerator.device))
            training.step(inputs, step / loaders.total_steps)
            step += 1
            if stop.status or step % budget.checkpoint_every == 0:
                save()
            if stop.status:
                return stop.status
        epoch += 1
        training.finish_epoch()
        _tell(training, epoch, budget.epochs, folder, display)
        save()
    return 0


def _tell(training: SliceTraining, epoch: int, epochs: int, folder: Path, display: Display) -> None:
    errors = training.errors()
    mean, worst = sum(errors.values()) / len(errors), max(errors, key=lambda path: errors[path])
    stopped = sum(trainer.is_done for trainer in training.trainers.values())
    display.say(
        f"slices, epoch {epoch} of {epochs}: error {mean:.4g} on average, {errors[worst]:.4g} at most ({worst}); "
        f"{stopped} of {len(errors)} have stopped"
    )
    log = folder / "errors.jsonl"
    earlier = log.read_text().splitlines()[: epoch - 1] if log.is_file() else []
    folder.mkdir(parents=True, exist_ok=True)
    log.write_text("".join(f"{line}\n" for line in [*earlier, json.dumps({"epoch": epoch, "errors": errors})]))
