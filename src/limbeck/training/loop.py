"""The one train loop, read top to bottom: prepare, then epochs of steps, each epoch evaluated, all of it resumable."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, send_to_device
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Subset

from limbeck.core.auto_weight import BATCHES
from limbeck.core.distiller import Distiller
from limbeck.core.modules import call
from limbeck.data.order import TrainOrder, seed_of
from limbeck.teacher.prepare import prepare_teacher
from limbeck.training.checkpoint import load_checkpoint, save_checkpoint
from limbeck.training.display import Display, show
from limbeck.training.optimizer import learning_rate, make_optimizer
from limbeck.training.preflight import preflight
from limbeck.training.recipe import EXAMPLES, Recipe
from limbeck.training.record import drop_after, log, save_student
from limbeck.training.signals import StopRequest

LOG_EVERY = 20  # steps between looks at the losses: on a GPU each look waits for the device


@dataclass
class Report:
    """How a run ended."""

    run: Path
    finished: bool = False  # False: interrupted, to be resumed
    best: dict[str, float] = field(default_factory=dict)  # metrics of student.safetensors
    last: dict[str, float] = field(default_factory=dict)  # metrics of student-last.safetensors
    teacher: dict[str, float] = field(default_factory=dict)
    weights: dict[str, float | None] = field(default_factory=dict)  # of the matches


def train(
    recipe: Recipe, run: Path, *, resume: bool = False, tracker: str | None = None, quiet: bool = False
) -> Report:
    """Train a recipe's student into a run folder.

    Args:
        recipe: What to train, on what, for how long.
        run: Folder for ``metrics.jsonl``, ``checkpoints/``, ``student.safetensors`` (the best) and
            ``student-last.safetensors``.
        resume: Go on from the newest checkpoint; the result is bitwise that of an unbroken run.
        tracker: A tracker of Accelerate's to log to, such as ``"tensorboard"``.
        quiet: Show nothing.

    Raises:
        ValueError: The run folder holds a run already and ``resume`` is not set, or the preflight found something.
        FloatingPointError: A loss was not finite.
        OSError: The disk did not take a file.
    """
    training = Training(recipe, run, tracker, quiet)
    with training.display, training.stop_request.watch():
        training.start(resume)
        for epoch in range(training.epoch, recipe.budget.epochs):
            for batches in training.steps(epoch):
                training.train_step(batches)
                if training.stopping():
                    training.save()
                    training.display.say(
                        f"stopped after step {training.step}; go on with: limbeck distill {run} --resume"
                    )
                    return training.report
            training.finish_epoch(epoch)
        training.finish()
    return training.report


class Training:
    """A run while it is trained. Everything random is a function of (seed, step), so the state is small."""

    def __init__(self, recipe: Recipe, run: Path, tracker: str | None, quiet: bool):
        budget = recipe.budget
        precision = "no" if budget.precision == "fp32" else budget.precision
        AcceleratorState._reset_state()  # or a second run in this process could have no other precision
        cpu = not torch.accelerator.is_available()  # if not said, processes without a GPU do not find each other
        self.accelerator = Accelerator(cpu=cpu, mixed_precision=precision, log_with=tracker, project_dir=run)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False  # resume is to be exact
        self.recipe, self.budget, self.task, self.run = recipe, budget, recipe.task, run
        title = run.name if quiet else ""
        self.display = Display(quiet=quiet, hidden=not self.accelerator.is_main_process, title=title)
        self.report = Report(run)
        self.step = self.epoch = 0  # steps done, epochs done and evaluated
        self.steps_per_epoch = len(recipe.train_data) // budget.batch_size  # type: ignore[arg-type]
        self.val_loader = self._loader(recipe.val_data, batch_size=recipe.val_batch_size or budget.batch_size)
        self._losses: list[Tensor] = []  # (terms) of each step since the last look
        self._names: list[str] = []
        self.stop_request = StopRequest()

    def start(self, resume: bool) -> None:
        """Check what can be checked, build the model, and load the newest checkpoint."""
        for note in self.recipe.notes:
            self.display.say(note)
        found = load_checkpoint(self.run / "checkpoints")
        if found and not resume:
            raise ValueError(f"{self.run} holds a run already; go on with --resume, or choose another --out")
        self._train_loader(epoch=0)  # tells of a batch size that does not fit
        at_once = self.budget.batch_size // (self.budget.accumulate * self.accelerator.num_processes)
        looked_at = self.recipe.examples or range(min(EXAMPLES, at_once))  # no more than there is memory for
        example = self.recipe.collate([self.recipe.train_data[0, index] for index in looked_at])
        example = send_to_device(example, self.accelerator.device)
        torch.manual_seed(seed_of(self.budget.seed, "build"))
        model = self._build(example)
        if self.accelerator.num_processes > 1:
            self.accelerator.ddp_handler = DistributedDataParallelKwargs(
                find_unused_parameters=self._has_unused(example)
            )
        optimizer = make_optimizer(model.parameters(), self.budget)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.bare = self.accelerator.unwrap_model(self.model)
        self.student = self.bare.student if isinstance(self.bare, Distiller) else self.bare
        decay = self.budget.ema
        average = get_ema_multi_avg_fn(decay) if decay else None  # type: ignore[no-untyped-call]
        self.ema = AveragedModel(self.student, multi_avg_fn=average, use_buffers=True) if average else None
        if found:
            self._restore(*found)
        elif resume:
            self.display.say(f"no checkpoint in {self.run}: starting from the beginning")
        if self.accelerator.is_main_process:
            self.run.mkdir(parents=True, exist_ok=True)
            drop_after(self.run / "metrics.jsonl", self.step, self.epoch)
        self.accelerator.init_trackers("limbeck")
        self.display.begin(self.budget.epochs * self.steps_per_epoch, self.step)

    def _build(self, example: Any) -> nn.Module:
        """The student alone, or the Distiller, prepared and looked over."""
        recipe, device = self.recipe, self.accelerator.device
        student = recipe.student.to(device)
        if self.budget.channels_last:
            student.to(memory_format=torch.channels_last)
        if recipe.teacher is None:
            return student
        plain = recipe.teacher.to(device)
        if recipe.teacher_check:
            self.report.teacher = self.task.evaluate_teacher(plain, self._val_batches("measuring the teacher"))
            self.display.say(f"teacher: {show(self.report.teacher, self.task.metric)}")
            self.task.check_teacher(self.report.teacher)
        layers = dict.fromkeys(layer for match in recipe.matches for layer in match.teacher)
        inputs, teacher_inputs = self.task.inputs(example), self.task.teacher_inputs(example)
        truth = self.task.truth(example)
        teacher = prepare_teacher(plain, layers, example=teacher_inputs, **recipe.prepare)
        distiller = Distiller(
            student, teacher, recipe.matches, example=inputs, truth=truth, teacher_inputs=teacher_inputs
        ).to(device)
        for row in preflight(distiller, inputs, truth=truth, teacher_inputs=teacher_inputs):
            self.display.say(str(row))
        batches = self.budget.epochs * self.steps_per_epoch * self.budget.accumulate
        if batches <= BATCHES and any(match.measuring for match in distiller.matches):
            self.display.say(
                f"the weight auto settles over {BATCHES} batches, and this run has {batches}; train for longer, or "
                "pass --weight"
            )
        return distiller

    def _has_unused(self, example: Any) -> bool:
        """Whether the student has parameters that its loss does not reach: an encoder's end may not be decoded."""
        student = copy.deepcopy(self.recipe.student).train()  # a detector gives losses only then
        trained = [parameter for parameter in student.parameters() if parameter.requires_grad]
        output = call(student, self.task.inputs(example))
        gradients = torch.autograd.grad(self.task.loss(output, example), trained, allow_unused=True)
        return any(gradient is None for gradient in gradients)

    def steps(self, epoch: int) -> Iterator[list[Any]]:
        """The micro-batches of each step that is left in an epoch."""
        done = self.step - epoch * self.steps_per_epoch
        self.display.epoch(epoch, self.budget.epochs)
        loader = iter(self._train_loader(epoch, done))
        for _ in range(done, self.steps_per_epoch):
            asked = time.perf_counter()
            batches = [next(loader) for _ in range(self.budget.accumulate)]
            self.display.loaded(self.budget.batch_size, time.perf_counter() - asked)
            yield batches
            self.display.step()

    def train_step(self, batches: list[Any]) -> None:
        """One optimizer step, over its micro-batches."""
        budget, accelerator = self.budget, self.accelerator
        steps = budget.epochs * self.steps_per_epoch
        rate = learning_rate(budget, self.step, steps, self.steps_per_epoch)
        if isinstance(self.bare, Distiller):
            self.bare.set_progress(self.step / steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        totals = []
        for part, batch in enumerate(batches):
            torch.manual_seed(seed_of(budget.seed, "step", self.step, part, accelerator.process_index))
            last = part == len(batches) - 1
            with nullcontext() if last else accelerator.no_sync(self.model):
                losses = self._losses_of(send_to_device(batch, accelerator.device, non_blocking=True))
                totals.append(torch.stack(list(losses.values())) / len(batches))
                accelerator.backward(totals[-1].sum())
        self._names = list(losses)
        self._losses.append(torch.stack(totals).sum(0).detach())
        if budget.clip is not None:
            accelerator.clip_grad_norm_(self.bare.parameters(), budget.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.ema is not None:
            self.ema.update_parameters(self.student)
        self.step += 1
        if self.step % LOG_EVERY == 0:
            self.look()
        if self.step % budget.checkpoint_every == 0:
            self.save()

    def _losses_of(self, batch: Any) -> dict[str, Tensor]:
        inputs = self.task.inputs(batch)
        args, kwargs = ((), inputs) if isinstance(inputs, dict) else (inputs, {})
        if self.recipe.teacher is None:
            return {"task": self.task.loss(self.model(*args, **kwargs), batch)}
        teacher_inputs, truth = self.task.teacher_inputs(batch), self.task.truth(batch)
        distilled = self.model(*args, truth=truth, teacher_inputs=teacher_inputs, **kwargs)
        return {"task": self.task.loss(distilled.output, batch), **distilled.losses}

    def look(self) -> None:
        """Show and log the losses since the last look, and stop where one is not finite."""
        if not self._losses:
            return
        losses = self.accelerator.reduce(torch.stack(self._losses), "mean").cpu()  # (steps, terms)
        first, self._losses = self.step - len(self._losses), []
        if (bad := (~losses.isfinite()).nonzero()).numel():
            step, term = bad[0].tolist()
            kept = load_checkpoint(self.run / "checkpoints")
            raise FloatingPointError(
                f"the loss {self._names[term]} is {losses[step, term]:.4g} at step {first + step + 1}; last good "
                f"checkpoint: {kept[0] if kept else 'none yet'}; try a lower learning rate, --clip or another precision"
            )
        means = dict(zip(self._names, losses.mean(0).tolist(), strict=True))
        rates = self.display.losses(self.epoch, self.step, means)
        self._log("train", {**means, **rates, "learning_rate": self.optimizer.param_groups[0]["lr"]})
        if isinstance(self.bare, Distiller):
            weights = {str(match): match.weight for match in self.bare.matches}
            if weights != self.report.weights and None not in weights.values():
                shown = ", ".join(f"{name} {weight:.4g}" for name, weight in weights.items())
                if not self.report.weights:  # later ones, of a schedule, are in the log
                    self.display.say(f"weights: {shown}")
                self.report.weights = weights
                self._log("weights", {name: weight for name, weight in weights.items() if weight is not None})

    def finish_epoch(self, epoch: int) -> None:
        """Evaluate where it is due, keep the best student, and save."""
        self.look()
        self.epoch = epoch + 1
        if self.epoch % self.budget.evaluate_every == 0 or self.epoch == self.budget.epochs:
            kept = self.ema.module if self.ema is not None else self.student
            metrics = self.report.last = self.task.evaluate(kept, self._val_batches("evaluating"))
            name = self.task.metric
            if not self.report.best or metrics[name] > self.report.best[name]:
                self.report.best = metrics
                self._save_student(kept, "student.safetensors", metrics)
            self._log("val", metrics)
            self.display.metrics(epoch, metrics, name, self.report.best[name])
            if self.epoch == self.budget.epochs:
                self._save_student(kept, "student-last.safetensors", metrics)
        self.save()

    def finish(self) -> None:
        self.report.finished = True
        self.accelerator.end_training()
        name = self.task.metric
        self.display.say(f"best {name} {self.report.best[name]:.4f}, last {self.report.last[name]:.4f}")
        self.display.say(f"student: {self.run / 'student.safetensors'}")

    def save(self) -> None:
        """A checkpoint of everything that the rest of the run depends on."""
        self.look()  # only what is finite is saved
        if self.accelerator.is_main_process:
            scaler = self.accelerator.scaler
            state = {
                "step": self.step,
                "epoch": self.epoch,
                "best": self.report.best,
                "last": self.report.last,
                "model": self.bare.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": scaler.state_dict() if scaler is not None else None,
                "ema": self.ema.state_dict() if self.ema is not None else None,
            }
            save_checkpoint(self.run / "checkpoints", self.step, state)
        self.accelerator.wait_for_everyone()

    def _restore(self, path: Path, state: dict[str, Any], damaged: list[str]) -> None:
        for line in damaged:
            self.display.say(line)
        self.bare.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.step, self.epoch = state["step"], state["epoch"]
        self.report.best, self.report.last = state["best"], state["last"]
        self.display.say(f"resumed from {path}: step {self.step}, epoch {self.epoch + 1}")

    def _save_student(self, student: nn.Module, name: str, metrics: dict[str, float]) -> None:
        if self.accelerator.is_main_process:
            save_student(student, self.run / name, {**self.recipe.card, "metrics": metrics})

    def _train_loader(self, epoch: int, start: int = 0) -> DataLoader[Any]:
        order = TrainOrder(
            len(self.recipe.train_data),  # type: ignore[arg-type]
            self.budget.batch_size,
            epoch=epoch,
            seed=self.budget.seed,
            start=start,
            accumulate=self.budget.accumulate,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
        )
        return self._loader(self.recipe.train_data, batch_sampler=order)

    def _loader(self, data: Any, **options: Any) -> DataLoader[Any]:
        if "batch_sampler" not in options:  # every process evaluates its share
            data = Subset(data, range(self.accelerator.process_index, len(data), self.accelerator.num_processes))
        pinned = self.accelerator.device.type == "cuda"
        collate, workers = self.recipe.collate, self.budget.workers
        return DataLoader(data, num_workers=workers, collate_fn=collate, pin_memory=pinned, **options)

    def _val_batches(self, purpose: str) -> Iterator[Any]:
        """The validation batches of this process, on its device, while the display shows how far they are."""
        shown = self.display.track(self.val_loader, purpose, len(self.val_loader))
        return (send_to_device(batch, self.accelerator.device) for batch in shown)

    def _log(self, kind: str, values: dict[str, float]) -> None:
        if self.accelerator.is_main_process:
            log(self.run / "metrics.jsonl", kind, self.step, self.epoch, values)
        self.accelerator.log({f"{kind}/{name}": value for name, value in values.items()}, step=self.step)

    def stopping(self) -> bool:
        """Whether to stop: on many processes all of them agree, every few steps."""
        if self.accelerator.num_processes == 1:
            return self.stop_request.made
        if self.step % LOG_EVERY:
            return False
        flag = torch.tensor(float(self.stop_request.made), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, "sum").item())
