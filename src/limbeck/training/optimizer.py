"""Learning rate and parameter groups."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from limbeck.training.recipe import Budget

MILESTONES = {"steps": (0.3, 0.6, 0.9), "two-steps": (8 / 12, 11 / 12)}  # of the run; times 0.1 at each
POWER = 0.9  # of poly, as everyone has it since DeepLab (arXiv 1606.00915)


def learning_rate(budget: Budget, step: int, steps: int, steps_per_epoch: int) -> float:
    """The rate for a step: a function of the step alone, so that a resumed run needs nothing stored.

    >>> budget = Budget(learning_rate=1.0, schedule="cosine", warmup_epochs=1)
    >>> [round(learning_rate(budget, step, 30, 10), 2) for step in (0, 9, 10, 20, 29)]
    [0.1, 1.0, 1.0, 0.5, 0.01]
    """
    warmup = round(budget.warmup * steps_per_epoch)
    if step < warmup:
        return budget.highest_rate * (step + 1) / warmup
    if budget.schedule == "constant":
        return budget.highest_rate
    if budget.schedule in MILESTONES:
        return budget.highest_rate * 0.1 ** sum(step >= part * steps for part in MILESTONES[budget.schedule])
    progress = (step - warmup) / max(1, steps - warmup)
    if budget.schedule == "poly":
        return budget.highest_rate * math.pow(1 - progress, POWER)
    return budget.highest_rate * 0.5 * (1 + math.cos(math.pi * progress))


def make_optimizer(parameters: Iterable[nn.Parameter], budget: Budget) -> torch.optim.Optimizer:
    """SGD or AdamW over two groups: weights are decayed, norms and biases are not."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": budget.decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if budget.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=budget.highest_rate)
    return torch.optim.SGD(groups, lr=budget.highest_rate, momentum=0.9, nesterov=True)
