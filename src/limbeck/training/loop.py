"""The one train loop, read top to bottom: prepare, then epochs of steps, each epoch evaluated, all of it resumable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from limbeck.models.run_folder import RunFolder
from limbeck.training.devices import make_accelerator
from limbeck.training.display import Display
from limbeck.training.loaders import telling_of_workers
from limbeck.training.lock import check_place, held
from limbeck.training.options import RunOptions
from limbeck.training.recipe import Recipe
from limbeck.training.report import Report
from limbeck.training.signals import StopRequest
from limbeck.training.training import Training

LOG_EVERY = 20  # steps between lines of the log: on a GPU each waits for the device


def train(
    recipe: Recipe,
    run: Path,
    options: RunOptions = RunOptions(),
    *,
    record: Mapping[str, Any] | None = None,
    draw_first_batch: Callable[[Path], None] | None = None,
    quiet: bool = False,
) -> Report:
    """Train a recipe's student into a run folder.

    Args:
        recipe: What to train, on what, for how long.
        run: Folder for ``metrics.jsonl``, ``console.log``, ``checkpoints/``, ``student.safetensors`` (the best) and
            ``student-last.safetensors``.
        options: How the run is started.
        record: Written to ``recipe.json`` when the run takes its first step.
        draw_first_batch: Writes a picture of it to a file when the run takes its first step.
        quiet: Show nothing but how far it is.

    Raises:
        ValueError: The run folder holds a run already and is not to be resumed, or is to be resumed as another, or
            cannot be made, or the preflight found something.
        FloatingPointError: A loss was not finite.
        OSError: The disk did not take a file, a loader process was killed, or another process holds the folder.
    """
    check_place(RunFolder(run))
    accelerator, folder = make_accelerator(recipe.budget, run, options), RunFolder(run)
    first, title = accelerator.is_main_process, run.name if quiet else ""
    writes = first and not options.dry_run
    with (
        Display(quiet=quiet, hidden=not first, title=title) as display,
        held(folder, display.say) if writes else nullcontext(),
        telling_of_workers(),
    ):
        training = Training(recipe, folder, options, accelerator, display)
        state, loaders = training.state, training.loaders
        if options.dry_run:
            display.say("dry run: this would be the first step; nothing was written")
            return training.report()
        with StopRequest(accelerator, options.max_hours).watch() as stop:
            training.begin(record, draw_first_batch)
            while training.goes_on():
                try:
                    for batches in loaders.steps(state.epoch, state.step):
                        training.losses.add(*training.train_step(state, batches))
                        if state.step % LOG_EVERY == 0:
                            training.log_losses()
                            stop.agree()
                        if stop.status or state.step % recipe.budget.checkpoint_every == 0:
                            training.save()
                        if stop.status:
                            display.say(f"stopped after step {state.step}; go on with: {folder.going_on()}")
                            accelerator.end_training()  # a process group left to the end can abort the process
                            return training.report(status=stop.status)
                    training.finish_epoch()
                except FloatingPointError as error:
                    training.rewind(error)
            training.finish()
    return training.report(finished=True)
