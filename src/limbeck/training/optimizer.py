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


def make_optimizer(
    parameters: Iterable[nn.Parameter], budget: Budget, loaded: Iterable[nn.Parameter] = ()
) -> torch.optim.Optimizer:
    """SGD or AdamW over groups: weights are decayed, norms and biases are not; what was loaded learns more slowly.

    Args:
        parameters: All; those that need no gradient are left out.
        budget: Optimizer, decay, and rates.
        loaded: Those that start from trained weights, with ``budget.loaded`` of the rate.
    """
    slow = {id(parameter) for parameter in loaded}
    groups = [
        {
            "params": [p for p in chosen if (p.ndim > 1) == decayed],
            "weight_decay": budget.decay if decayed else 0.0,
            "part": part,
        }
        for part, chosen in _by_part(parameters, slow, budget.loaded)
        for decayed in (True, False)
    ]
    if budget.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=budget.highest_rate)
    return torch.optim.SGD(groups, lr=budget.highest_rate, momentum=0.9, nesterov=True)


def _by_part(parameters: Iterable[nn.Parameter], slow: set[int], part: float) -> list[tuple[float, list[nn.Parameter]]]:
    """The trained parameters by the part of the learning rate that they learn at; the second group only if need be."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    quick = [p for p in trained if id(p) not in slow]
    return [(1.0, quick), (part, [p for p in trained if id(p) in slow])] if slow else [(1.0, quick)]


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its part of a learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["part"]
