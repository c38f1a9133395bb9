"""Gradients that are scaled on their way: for the student, and for the weights of a criterion."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class ScaledGradient(torch.autograd.Function):
    """``apply(tensor, factor)``: the tensor as it is; its gradient is multiplied by the factor, a scalar tensor."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(factor)
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (factor,) = ctx.saved_tensors
        return gradient * factor, None


class WeightedValue(torch.autograd.Function):
    """``apply(value, weight, pace)``: the value times the weight; its gradient is multiplied by the pace instead."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, weight: float | Tensor, pace: Tensor) -> Tensor:
        ctx.save_for_backward(pace)
        return value * weight

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (pace,) = ctx.saved_tensors
        return gradient * pace, None, None
