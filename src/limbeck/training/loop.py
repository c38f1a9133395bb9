"""The one train loop, read top to bottom: prepare, then epochs of steps, each epoch evaluated, all of it resumable."""

from __future__ import annotations

from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs

from limbeck.data.order import seed_of
from limbeck.models.run_folder import RunFolder
from limbeck.training.advice import advise_on_teacher
from limbeck.training.build import build, has_unused
from limbeck.training.checkpoint import load_checkpoint, save_checkpoint
from limbeck.training.display import Display
from limbeck.training.fine_tuning import describe, freeze
from limbeck.training.loaders import Loaders
from limbeck.training.losses import Losses
from limbeck.training.options import RunOptions
from limbeck.training.recipe import Budget, Recipe
from limbeck.training.record import drop_after, log, save_student
from limbeck.training.report import Report
from limbeck.training.signals import StopRequest
from limbeck.training.state import State
from limbeck.training.step import TrainStep

LOG_EVERY = 20  # steps between lines of the log: on a GPU each waits for the device


def train(recipe: Recipe, run: Path, options: RunOptions = RunOptions(), *, quiet: bool = False) -> Report:
    """Train a recipe's student into a run folder.

    Args:
        recipe: What to train, on what, for how long.
        run: Folder for ``metrics.jsonl``, ``checkpoints/``, ``student.safetensors`` (the best) and
            ``student-last.safetensors``.
        options: How the run is started.
        quiet: Show nothing but how far it is.

    Raises:
        ValueError: The run folder holds a run already and is not to be resumed, or the preflight found something.
        FloatingPointError: A loss was not finite.
        OSError: The disk did not take a file.
    """
    accelerator = make_accelerator(recipe.budget, run, options.tracker)
    hidden, title = not accelerator.is_main_process, run.name if quiet else ""
    with Display(quiet=quiet, hidden=hidden, title=title) as display, StopRequest(accelerator).watch() as stop:
        training = Training(recipe, RunFolder(run), options, accelerator, display)
        state, loaders, train_step = training.state, training.loaders, training.train_step
        for epoch in range(state.epoch, recipe.budget.epochs):
            for batches in loaders.steps(epoch, state.step):
                training.losses.add(*train_step(state, batches))
                if state.step % LOG_EVERY == 0:
                    training.log_losses()
                    stop.agree()
                if stop.agreed or state.step % recipe.budget.checkpoint_every == 0:
                    training.save()
                if stop.agreed:
                    display.say(f"stopped after step {state.step}; go on with: limbeck distill {run} --resume")
                    return training.report(finished=False)
            training.log_losses()
            state.epoch = epoch + 1
            if state.epoch % recipe.budget.evaluate_every == 0 or state.epoch == recipe.budget.epochs:
                training.evaluate()
            training.save()
        training.finish()
    return training.report(finished=True)


def make_accelerator(budget: Budget, run: Path, tracker: str | None) -> Accelerator:
    precision = "no" if budget.precision == "fp32" else budget.precision
    AcceleratorState._reset_state()  # or a second run in this process could have no other precision
    cpu = not torch.accelerator.is_available()  # if not said, processes without a GPU do not find each other
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False  # resume is to be exact
    return Accelerator(cpu=cpu, mixed_precision=precision, log_with=tracker, project_dir=run)


class Training:
    """A run while it is trained, and what it writes down.

    Checks what can be checked, builds the model, and loads the newest checkpoint.
    """

    def __init__(
        self, recipe: Recipe, folder: RunFolder, options: RunOptions, accelerator: Accelerator, display: Display
    ):
        self.recipe, self.folder, self.accelerator, self.display = recipe, folder, accelerator, display
        self.task, budget = recipe.task, recipe.budget
        if budget.freeze:
            freeze(recipe.student, recipe.loaded)
        for note in [*recipe.notes, *describe(recipe.student, recipe.loaded, budget)]:
            display.say(note)
        found = load_checkpoint(folder.checkpoints)
        if found and not options.resume:
            raise ValueError(f"{folder} holds a run already; go on with --resume, or choose another --out")
        self.loaders = Loaders(recipe, accelerator, display)
        self.losses = Losses(accelerator)
        self.train_step = TrainStep(recipe, accelerator, self.loaders.steps_per_epoch)
        example = self.loaders.example()
        torch.manual_seed(seed_of(budget.seed, "build"))
        trained, self.teacher = build(recipe, self.loaders, example, accelerator.device, display)
        if accelerator.num_processes > 1:
            unused = has_unused(trained.student, recipe, example)
            accelerator.ddp_handler = DistributedDataParallelKwargs(find_unused_parameters=unused)
        self.state = State(trained, budget, accelerator, recipe.loaded)
        self.weights: dict[str, float] = {}  # of the matches, once they are measured
        self.overtaken = False  # whether the student was said to be ahead of its teacher
        if found:
            path, state, damaged = found
            for line in damaged:
                display.say(line)
            self.state.load_state_dict(state)
            display.say(f"resumed from {path}: step {self.state.step}, epoch {self.state.epoch + 1}")
        elif options.resume:
            display.say(f"no checkpoint in {folder}: starting from the beginning")
        if accelerator.is_main_process:
            folder.path.mkdir(parents=True, exist_ok=True)
            drop_after(folder.log, self.state.step, self.state.epoch)
        accelerator.init_trackers("limbeck")
        display.begin(self.train_step.steps, self.state.step)

    def log_losses(self) -> None:
        """Show and log the mean losses since the last time, and what the matches weigh where that is news.

        Raises:
            FloatingPointError: A loss is not finite.
        """
        if not self.losses:
            return
        try:
            means = self.losses.means(self.state.step)
        except FloatingPointError as error:
            last_good = load_checkpoint(self.folder.checkpoints)
            raise FloatingPointError(
                f"{error}; last good checkpoint: {last_good[0] if last_good else 'none yet'}; try a lower learning "
                "rate, --clip or another precision"
            ) from None
        for line in self.train_step.take_advice():
            self.display.say(line)
        rates = self.display.losses(self.state.epoch, self.state.step, means)
        self._log("train", {**means, **rates, "learning_rate": self.state.optimizer.param_groups[0]["lr"]})
        weights = {str(match): match.weight for match in self.state.trained.matches}
        known = {name: weight for name, weight in weights.items() if weight is not None}  # not still being measured
        if known.keys() == weights.keys() and known != self.weights:
            if not self.weights:  # later ones, of a schedule, are in the log
                self.display.say("weights: " + ", ".join(f"{name} {weight:.4g}" for name, weight in known.items()))
            self.weights = known
            self._log("weights", known)

    def evaluate(self) -> None:
        """Measure the student, and keep it where it is the best so far or the last."""
        state, name = self.state, self.task.metric
        state.last = self.task.evaluate(state.kept, self.loaders.validation("evaluating"))
        if not state.best or state.last[name] > state.best[name]:
            state.best = state.last
            self._save_student(self.folder.student)
        self._log("val", state.last)
        self.display.metrics(state.epoch - 1, state.last, name, state.best[name])
        if not self.overtaken and (advice := advise_on_teacher(state.last, self.teacher, name)):
            self.overtaken = True
            self.display.say(advice)
        if state.epoch == self.recipe.budget.epochs:
            self._save_student(self.folder.last_student)

    def save(self) -> None:
        """Write a checkpoint of everything that the rest of the run depends on."""
        self.log_losses()  # only what is finite is saved
        if self.accelerator.is_main_process:
            save_checkpoint(self.folder.checkpoints, self.state.step, self.state.state_dict())
        self.accelerator.wait_for_everyone()

    def finish(self) -> None:
        self.accelerator.end_training()
        name = self.task.metric
        self.display.say(f"best {name} {self.state.best[name]:.4f}, last {self.state.last[name]:.4f}")
        self.display.say(f"student: {self.folder.student}")

    def report(self, *, finished: bool) -> Report:
        return Report(self.folder.path, finished, self.state.best, self.state.last, self.teacher, self.weights)

    def _save_student(self, path: Path) -> None:
        if self.accelerator.is_main_process:
            save_student(self.state.kept, path, {**self.recipe.card, "metrics": self.state.last})

    def _log(self, kind: str, values: dict[str, float]) -> None:
        if self.accelerator.is_main_process:
            log(self.folder.log, kind, self.state.step, self.state.epoch, values)
        self.accelerator.log({f"{kind}/{name}": value for name, value in values.items()}, step=self.state.step)
