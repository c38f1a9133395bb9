"""One optimizer step."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import Tensor, nn

from limbeck.data.order import seed_of
from limbeck.training.advice import advise_on_gradients
from limbeck.training.optimizer import learning_rate, set_rate
from limbeck.training.recipe import Recipe
from limbeck.training.state import State
from limbeck.training.step_cost import step_cost

ADVISED = 8  # steps before advice on gradients: residual branches that end in zeros let none through in the first


class TrainStep:
    """Steps of a recipe, each over the micro-batches that it is given.

    Args:
        steps: Optimizer steps of the run.
        steps_per_epoch: Those of an epoch.
    """

    def __init__(self, recipe: Recipe, accelerator: Accelerator, steps: int, steps_per_epoch: int):
        self.budget, self.task, self.accelerator = recipe.budget, recipe.task, accelerator
        self.task_weight_at = recipe.task_weight_at
        self.steps, self.steps_per_epoch = steps, steps_per_epoch
        self._advice: tuple[str, ...] = ()
        self._batch: Any = None  # the last one

    def __call__(self, state: State, batches: list[Any]) -> tuple[list[str], Tensor]:
        """Take a step, and give its losses: their names, and their values (terms), means over the micro-batches."""
        state.trained.set_progress(state.step / self.steps)
        rate = learning_rate(self.budget, state.step, self.steps, self.steps_per_epoch)
        set_rate(state.optimizer, state.rate * rate)
        state.model.train()
        totals = []
        for part, batch in enumerate(batches):
            torch.manual_seed(seed_of(self.budget.seed, "step", state.step, part, self.accelerator.process_index))
            is_last = part == len(batches) - 1
            with nullcontext() if is_last else self.accelerator.no_sync(state.model):
                losses = self._losses(state, send_to_device(batch, self.accelerator.device, non_blocking=True))
                totals.append(torch.stack(list(losses.values())) / len(batches))
                self.accelerator.backward(totals[-1].sum())
        self.accelerator.unscale_gradients()  # once for both that look at them
        if state.step == ADVISED:  # it waits for the device
            self._advice = advise_on_gradients(state.student, totals[-1].sum())
        if self.budget.clip is not None:
            nn.utils.clip_grad_norm_(state.trained.parameters(), self.budget.clip)
        state.optimizer.step()
        state.optimizer.zero_grad()
        if state.ema is not None:
            state.ema.update_parameters(state.student)
        state.step += 1
        self._batch = batches[-1]
        return list(losses), torch.stack(totals).sum(0).detach()

    def cost(self, state: State) -> dict[str, float]:
        """What the parts of a step cost, measured with the last micro-batch."""
        if self._batch is None:  # resumed where an epoch's last step was taken
            return {}
        batch = send_to_device(self._batch, self.accelerator.device)
        state.model.train()
        return step_cost(state.trained, self.task, batch, self.accelerator)

    def take_advice(self) -> tuple[str, ...]:
        """What the first steps showed that the user should know; once."""
        advice, self._advice = self._advice, ()
        return advice

    def _losses(self, state: State, batch: Any) -> dict[str, Tensor]:
        inputs = self.task.inputs(batch)
        args, kwargs = ((), inputs) if isinstance(inputs, Mapping) else (inputs, {})
        teacher_inputs, truth = self.task.teacher_inputs(batch), self.task.truth(batch)
        distilled = state.model(*args, truth=truth, teacher_inputs=teacher_inputs, **kwargs)
        weight = self.task_weight_at(state.step / self.steps)
        return {"task": weight * self.task.loss(distilled.output, batch), **distilled.losses}
