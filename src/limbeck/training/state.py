"""What is trained, and how far it is: all that a checkpoint holds."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from limbeck.training.build import Trained
from limbeck.training.optimizer import make_optimizer
from limbeck.training.recipe import Budget


class State:
    """Model, optimizer, average and counters. Everything random is a function of (seed, step), so this is all."""

    def __init__(self, trained: Trained, budget: Budget, accelerator: Accelerator, loaded: Collection[str] = ()):
        self.trained, self.student = trained, trained.student
        slow = [parameter for name, parameter in trained.student.named_parameters() if name in loaded]
        if budget.compile:
            trained.compile()
        self.model, self.optimizer = accelerator.prepare(trained, make_optimizer(trained.parameters(), budget, slow))
        self.scaler = accelerator.scaler
        average = get_ema_multi_avg_fn(budget.ema) if budget.ema else None  # type: ignore[no-untyped-call]
        self.ema = AveragedModel(self.student, multi_avg_fn=average, use_buffers=True) if average else None
        self.step = self.epoch = 0  # steps done, epochs done and evaluated
        self.stale = 0  # evaluations since the best
        self.rate = 1.0  # part of the learning rate that is left after the times that a loss was not finite
        self.best: dict[str, float] = {}
        self.last: dict[str, float] = {}

    @property
    def kept(self) -> nn.Module:
        """The student that is evaluated and kept: the average, where there is one."""
        return self.student if self.ema is None else self.ema.module

    def share_statistics(self) -> None:
        """Bring what is saved of the batch norms, the first process's, to all: each has seen its own images since."""
        broadcast(list(self.kept.buffers()))

    def state_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "epoch": self.epoch,
            "stale": self.stale,
            "rate": self.rate,
            "best": self.best,
            "last": self.last,
            "model": self.trained.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict() if self.scaler is not None else None,
            "ema": self.ema.state_dict() if self.ema is not None else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.trained.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        if self.scaler is not None:
            self.scaler.load_state_dict(state["scaler"])
        self.step, self.epoch = state["step"], state["epoch"]
        self.stale, self.rate = state["stale"], state["rate"]
        self.best, self.last = state["best"], state["last"]
