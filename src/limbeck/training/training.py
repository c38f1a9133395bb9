"""A run while it is trained, and what it writes down."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs

from limbeck.data.order import seed_of
from limbeck.models.run_folder import RunFolder
from limbeck.training.advice import advise_on_teacher
from limbeck.training.build import build, has_unused
from limbeck.training.by_class import found_by
from limbeck.training.checkpoint import load_checkpoint, save_checkpoint, write_atomically
from limbeck.training.devices import restarts
from limbeck.training.display import Display
from limbeck.training.findings import Findings
from limbeck.training.fine_tuning import describe, freeze
from limbeck.training.fingerprint import fingerprint
from limbeck.training.loaders import Loaders
from limbeck.training.losses import Losses
from limbeck.training.options import RunOptions
from limbeck.training.recipe import Recipe
from limbeck.training.record import drop_after, log, save_student
from limbeck.training.report import Report
from limbeck.training.resumption import restore
from limbeck.training.state import State
from limbeck.training.step import TrainStep
from limbeck.training.step_cost import peak_memory

LOWEST_RATE = 1 / 64  # part of the learning rate below which going back is given up


class Training:
    """What is trained and its data, checked and built, with the newest checkpoint loaded; nothing is written yet."""

    def __init__(
        self, recipe: Recipe, folder: RunFolder, options: RunOptions, accelerator: Accelerator, display: Display
    ):
        self.recipe, self.folder, self.options = recipe, folder, options
        self.accelerator, self.display, self.task = accelerator, display, recipe.task
        if recipe.budget.freeze:
            freeze(recipe.student, recipe.loaded)
        for note in [*recipe.notes, *describe(recipe.student, recipe.loaded, recipe.budget)]:
            display.say(note)
        resume = options.resume or bool(restarts())
        if folder.has_run() and not (resume or options.overwrite):
            raise folder.occupied()
        found = load_checkpoint(folder.checkpoints) if resume else None
        if resume and folder.has_student() and found is None:
            raise ValueError(
                f"{folder} has a student, but no checkpoint to go on from; pass --overwrite to start again"
            )
        self.loaders = Loaders(recipe, accelerator, display)
        self.losses = Losses(accelerator)
        self.train_step = TrainStep(recipe, accelerator, self.loaders.total_steps, self.loaders.steps_per_epoch)
        example = self.loaders.example()
        torch.manual_seed(seed_of(recipe.budget.seed, "build"))
        built = build(recipe, self.loaders, example, accelerator.device, display)
        self.findings = Findings(folder, built, recipe.task, self.loaders, display)
        trained, self.teacher = built.trained, built.teacher
        unused = has_unused(trained.student, recipe, example)
        if accelerator.num_processes > 1:
            accelerator.ddp_handler = DistributedDataParallelKwargs(find_unused_parameters=unused)
        self.fingerprint = fingerprint(recipe, trained)
        self.state = State(trained, recipe.budget, accelerator, recipe.loaded)
        self.weights: dict[str, float] = {}  # of the matches, once they are measured
        self.overtaken = False  # whether the student was said to be ahead of its teacher
        self._describe()
        if found:
            self._restore(*found)
        elif resume:
            display.say(f"no checkpoint in {folder}: starting from the beginning")

    def _describe(self) -> None:
        budget, loaders, accelerator = self.recipe.budget, self.loaders, self.accelerator
        student = sum(parameter.numel() for parameter in self.state.student.parameters())
        processes = f"{accelerator.num_processes} processes, " if accelerator.num_processes > 1 else ""
        self.display.say(
            f"student: {student:,} parameters, trained on {processes}{accelerator.device} in {budget.precision} for "
            f"{loaders.total_steps:,} steps of {budget.batch_size} images ({loaders.steps_per_epoch:,} an epoch) by "
            f"{budget.optimizer}, learning rate {budget.highest_rate:.4g} at most"
        )

    def _restore(self, path: Path, stored: dict[str, Any], damaged: list[str]) -> None:
        state = self.state
        news = restore(state, path, stored, self.folder, self.fingerprint, self.loaders)
        for line in [*damaged, *news]:
            self.display.say(line)
        if not self.goes_on():
            self.display.say(f"{self.folder} is finished already: {state.epoch} epochs, {state.step} steps")
        else:
            self.display.say(f"resumed from {path}: step {state.step}, epoch {state.epoch + 1}")

    def begin(self, record: Mapping[str, Any] | None, draw_first_batch: Callable[[Path], None] | None) -> None:
        """Take the run folder: what a run before left there is cut back to the checkpoint, or removed."""
        state, folder = self.state, self.folder
        if self.accelerator.is_main_process:
            if state.step == 0:
                folder.clear()
            if self.goes_on():
                folder.last_student.unlink(missing_ok=True)  # of an end that is none any more
            if record is not None:
                write_atomically(folder.record, json.dumps(record, indent=1, default=str).encode())
            if draw_first_batch is not None and state.step == 0:
                draw_first_batch(folder.first_batch)
            self._cut_back()
            self.display.record_to(folder.console)
            if state.step == 0:
                self.findings.at_start()
        self.accelerator.init_trackers("limbeck")
        self.display.begin(self.loaders.total_steps, state.step)
        if self.recipe.budget.on_nan == "rewind" and state.step == 0:
            self.save()  # to go back to

    def goes_on(self) -> bool:
        """Whether there is an epoch to be trained."""
        patience = self.recipe.budget.patience
        is_out_of_patience = patience is not None and self.state.stale >= patience
        return self.state.epoch < self.recipe.budget.epochs and not self._is_at_end() and not is_out_of_patience

    def _is_at_end(self) -> bool:
        """Whether the last step is taken, and what follows it is done."""
        return (
            self.state.step >= self.loaders.total_steps
            and self.state.epoch * self.loaders.steps_per_epoch >= self.state.step
        )

    def log_losses(self) -> None:
        """Show and log the mean losses since the last time, and what the matches weigh where that is news.

        Raises:
            FloatingPointError: A loss is not finite.
        """
        if not self.losses:
            return
        means = self.losses.means(self.state.step)
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

    def finish_epoch(self) -> None:
        """Measure the student where that is due, keep it where it is the best so far, and save."""
        self.log_losses()
        state, budget = self.state, self.recipe.budget
        state.epoch += 1
        if state.epoch == 1:
            cost = self.train_step.cost(state)
            self._log("cost", {**cost, "batch_size": budget.batch_size, "accumulate": budget.accumulate})
        self._log("memory", peak_memory())
        if state.epoch % budget.evaluate_every == 0 or state.step >= self.loaders.total_steps:
            self._evaluate()
        for note in self.loaders.skipped():
            self.display.say(note)
        self.save()
        if self.options.keep_every and state.epoch % self.options.keep_every == 0 and self.accelerator.is_main_process:
            newest = self.folder.checkpoints / f"step-{state.step:08d}.ckpt"
            write_atomically(self.folder.checkpoints / f"epoch-{state.epoch:05d}.ckpt", newest.read_bytes())

    def _evaluate(self) -> None:
        state, name = self.state, self.task.metric
        state.share_statistics()
        state.last = self.task.evaluate(state.kept, self.loaders.validation("evaluating"))
        state.stale += 1
        if not state.best or state.last[name] > state.best[name]:
            state.best, state.stale = state.last, 0
            self._save_student(self.folder.student)
        self._log("val", state.last)
        if self.accelerator.is_main_process:
            self.findings.by_class("student", state.step, state.epoch, found_by(self.task))
        self.display.metrics(state.epoch - 1, state.last, name, state.best[name])
        if not self.overtaken and (advice := advise_on_teacher(state.last, self.teacher, name)):
            self.overtaken = True
            self.display.say(advice)

    def save(self) -> None:
        """Write a checkpoint of everything that the rest of the run depends on."""
        self.log_losses()  # only what is finite is saved
        if self.accelerator.is_main_process:
            about = {
                "run": self.fingerprint,
                "steps": self.loaders.total_steps,
                "processes": self.accelerator.num_processes,
            }
            save_checkpoint(self.folder.checkpoints, self.state.step, {**about, **self.state.state_dict()})
        self.accelerator.wait_for_everyone()

    def rewind(self, error: FloatingPointError) -> None:
        """Go back to the last checkpoint with half the learning rate, where the budget says so.

        Raises:
            FloatingPointError: The error, where it does not, or where that did not help several times.
        """
        found = load_checkpoint(self.folder.checkpoints)
        rate = self.state.rate / 2
        stops = self.recipe.budget.on_nan == "stop"
        if stops or found is None or rate < LOWEST_RATE:
            raise FloatingPointError(
                f"{error}; last good checkpoint: {found[0] if found else 'none yet'}; try a lower learning rate, a "
                f"smaller --clip, {'another precision, or --on-nan rewind' if stops else 'or another precision'}"
            ) from None
        self.state.load_state_dict(found[1])
        self.state.rate = rate
        if self.accelerator.is_main_process:
            self._cut_back()
        self._log("rewind", {"rate": rate})
        self.display.say(f"{error}; back to step {self.state.step}, with {rate:g} of the learning rate from here on")
        self.display.begin(self.loaders.total_steps, self.state.step)

    def _cut_back(self) -> None:
        """Drop what was logged after the step that the run is at."""
        for path in (self.folder.log, self.folder.classes):
            drop_after(path, self.state.step, self.state.epoch)

    def finish(self) -> None:
        self._save_student(self.folder.last_student)
        if self.accelerator.is_main_process:
            self.findings.at_end()
        self.accelerator.end_training()
        state, name = self.state, self.task.metric
        if state.step < self.loaders.total_steps:
            self.display.say(f"ended after epoch {state.epoch}: no better student in {state.stale} evaluations")
        self.display.say(f"best {name} {state.best[name]:.4f}, last {state.last[name]:.4f}")
        self.display.say(f"student: {self.folder.student}")

    def report(self, *, finished: bool = False, status: int = 0) -> Report:
        state = self.state
        return Report(self.folder.path, finished, status, state.best, state.last, self.teacher, self.weights)

    def _save_student(self, path: Path) -> None:
        if self.accelerator.is_main_process:
            save_student(self.state.kept, path, {**self.recipe.card, "metrics": self.state.last})

    def _log(self, kind: str, values: dict[str, float]) -> None:
        if self.accelerator.is_main_process:
            log(self.folder.log, kind, self.state.step, self.state.epoch, values)
        self.accelerator.log({f"{kind}/{name}": value for name, value in values.items()}, step=self.state.step)
