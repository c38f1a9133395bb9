"""Weights that change in the course of training: functions of progress in [0, 1], for ``Match(..., weight=...)``.

Any function of one number will do; ``Distiller.set_progress`` tells it how far training has come.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from limbeck.core.checks import AWAY


@dataclass(frozen=True)
class EarlyDecay:
    """The early decay of the teacher of Channel Distillation, https://arxiv.org/abs/2006.01683.

    ``weight * factor**n``, where n counts the milestones that are behind.

    Args:
        weight: At the beginning.
        factor: Of each milestone.
        at: Milestones as fractions of training: the paper's 30, 60 and 90 of 100 epochs on ImageNet; on CIFAR it has
            (0.3, 0.8).

    >>> weight = EarlyDecay(6.0, factor=0.5)
    >>> weight(0.0), weight(0.3), weight(0.95)
    (6.0, 3.0, 0.75)
    """

    weight: float
    factor: float = 0.9
    at: tuple[float, ...] = (0.3, 0.6, 0.9)

    def __call__(self, progress: float) -> float:
        return self.weight * self.factor ** sum(progress >= milestone for milestone in self.at)


@dataclass(frozen=True)
class WarmUp:
    """A weight that rises linearly from 0, as DKD and ReviewKD have it in the first 20 of 240 epochs.

    Args:
        weight: At the end of the warm-up, and from then on.
        until: Where that is, as a fraction of training.

    >>> weight = WarmUp(8.0, until=0.1)
    >>> weight(0.0), weight(0.05), weight(0.5)
    (0.0, 4.0, 8.0)
    """

    weight: float
    until: float = 1 / 12

    def __str__(self) -> str:
        return f"WarmUp({self.weight:g}, until={self.until:.2g})"

    def __call__(self, progress: float) -> float:
        return self.weight * progress / self.until if progress < self.until else self.weight


@dataclass(frozen=True)
class LateStart:
    """0 at first, then a weight: of the cross entropy in Channel Distillation, https://arxiv.org/abs/2006.01683.

    Args:
        weight: From its start on.
        at: Where that is, as a fraction of training: the paper's 30 of 100 epochs on ImageNet, 60 of 200 on CIFAR.

    >>> weight = LateStart(1.0)
    >>> weight(0.0), weight(0.3), weight(1.0)
    (0.0, 1.0, 1.0)
    """

    weight: float
    at: float = 0.3

    def __str__(self) -> str:
        return f"LateStart({self.weight:g}, at={self.at:.2g})"

    def __call__(self, progress: float) -> float:
        return self.weight if progress >= self.at else 0.0


def check_scheduled(match: object, weight: float, progress: float) -> None:
    """Refuse what is no weight of a match, of what a function of progress gives."""
    if not math.isfinite(weight):
        raise ValueError(f"the weight of {match} is {weight} at progress {progress:.4g}")
    if weight < 0:
        raise ValueError(f"the weight of {match} is {weight} at progress {progress:.4g}; {AWAY}")
