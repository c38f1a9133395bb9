"""Gradients that are scaled on their way: for the student, and for the weights of a criterion."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class ScaledGradient(torch.autograd.Function):
    """``apply(tensor, factor)``: the tensor as it is; its gradient is multiplied by the factor, a scalar tensor."""

    generate_vmap_rule = True

    @staticmethod
    def forward(tensor: Tensor, factor: Tensor) -> Tensor:
        return tensor.view_as(tensor)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (factor,) = ctx.saved_tensors
        return gradient * factor, None


class WeightedValue(torch.autograd.Function):
    """``apply(value, weight, pace)``: the value times the weight; its gradient is multiplied by the pace instead.

    Once: a gradient of this gradient would be scaled by ``ScaledGradient`` a second time.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(value: Tensor, weight: float | Tensor, pace: Tensor) -> Tensor:
        return value * weight

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[2])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        again = torch.is_grad_enabled() and not torch.compiler.is_compiling()  # create_graph
        if again and torch._C._functorch.peek_interpreter_stack() is None:
            raise RuntimeError(
                "the two gradients of a Match cannot be differentiated again (create_graph=True); pass coupled=True"
            )
        (pace,) = ctx.saved_tensors
        return gradient * pace, None, None
