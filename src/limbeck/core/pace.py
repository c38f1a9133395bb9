"""How fast a match's own weights learn, apart from how much the student listens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map


def paced(criterion: Callable[[Any], Tensor], student: Any, weight: float | Tensor, normaliser: Tensor) -> Tensor:
    """The value ``weight * criterion(student)``, with one gradient for the student and another for the criterion.

    The student's feature gets the gradient of that value. The weights inside the criterion get the gradient of
    ``criterion(student) / normaliser``, which does not depend on ``weight``.

    Args:
        criterion: Of the student's feature, and whatever weights it has.
        student: A tensor, or a tuple of them.
        weight, normaliser: Scalars.
    """
    factor = weight * normaliser
    value = criterion(tree_map(lambda feature: _ScaledGradient.apply(feature, factor), student))
    weighted: Tensor = _WeightedValue.apply(value, weight, normaliser)
    return weighted


class _ScaledGradient(torch.autograd.Function):
    """The tensor as it is; the gradient is multiplied by the factor."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(factor)
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (factor,) = ctx.saved_tensors
        return gradient * factor, None


class _WeightedValue(torch.autograd.Function):
    """The value times the weight; the gradient is divided by the normaliser."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, weight: float | Tensor, normaliser: Tensor) -> Tensor:
        ctx.save_for_backward(normaliser)
        return value * weight

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (normaliser,) = ctx.saved_tensors
        return gradient / normaliser, None, None
