"""Loss and gradients in one pass over pieces of a batch, so that no temporary of the whole batch's size is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from limbeck.core.precision import exact

CHUNK = {"cpu": 2**21, "cuda": 2**24}  # elements of the largest temporary
Formula = Callable[..., Tensor]  # (student, teacher, *further) -> scalar
Run = Callable[..., tuple[Any, ...]]


def sum_of_pieces(
    formula: Formula, student: Tensor, teacher: Tensor, *further: Tensor, weights: Sequence[Tensor] = (), dim: int = 0
) -> Tensor:
    """The sum of a formula over slices of the features, for a formula whose value is such a sum.

    The gradients are made slice by slice in the forward pass; what is kept for the backward pass, beside the features
    themselves, is the gradient of the student's, and nothing else of its size. Slices of features in low precision are
    computed in float32. Compiled, and under the transforms of ``torch.func``, it is the formula as it stands.

    Args:
        formula: Of (student, teacher, *further), each sliced alike.
        student, teacher: The features; the teacher's gets no gradient.
        *further: What else is sliced with them; it gets no gradient.
        weights: Weights that the formula uses, of which those that are trained get gradients.
        dim: Along which the slices are cut: 0 where images are independent of each other, 1 where channels are.
    """
    every = (student, teacher, *further)
    if torch.compiler.is_compiling() or transformed():
        return formula(*map(exact, every))
    if not torch.is_grad_enabled():
        return torch.stack([formula(*cut(every, dim, piece)) for piece in pieces(student, dim)]).sum()
    trained = [weight for weight in weights if weight.requires_grad]

    def whole(*tensors: Tensor) -> Tensor:
        return formula(*map(exact, tensors[: len(every)]))

    total: Tensor = OnePass.apply(partial(_run, formula, dim, len(further)), whole, *every, *trained)
    return total


def transformed() -> bool:
    """Whether a transform of ``torch.func`` is at work, which wants formulas that autograd sees through."""
    active: bool = torch._C._are_functorch_transforms_active()
    return active


class OnePass(torch.autograd.Function):
    """A loss whose gradients are made in the forward pass, and only multiplied by the incoming one backwards.

    ``apply(run, formula, *tensors)``, where ``run(*tensors)`` gives the loss, and a gradient or ``None`` for each
    tensor; ``formula(*tensors)`` gives the loss alone, for gradients that are differentiated again.
    """

    @staticmethod
    def forward(ctx: Any, run: Run, formula: Formula, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors)
        ctx.run, ctx.formula = run, formula
        loss: Tensor
        loss, *ctx.gradients = run(*tensors)
        ctx.have_gradients = [gradient is not None for gradient in ctx.gradients]
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # by create_graph=True
            return None, None, *OnePass._differentiable(ctx, upstream)
        # Given away, so that they can be scaled in place; a second backward over a retained graph makes them anew.
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            _, *gradients = ctx.run(*ctx.saved_tensors)
        return None, None, *(None if gradient is None else gradient.mul_(upstream) for gradient in gradients)

    @staticmethod
    def _differentiable(ctx: Any, upstream: Tensor) -> list[Tensor | None]:
        """The gradients by autograd's own way, through the formula."""
        tensors = ctx.saved_tensors
        wanted = [index for index, has in enumerate(ctx.have_gradients) if has and ctx.needs_input_grad[2 + index]]
        found = torch.autograd.grad(
            ctx.formula(*tensors), [tensors[index] for index in wanted], upstream, create_graph=True
        )
        gradients: list[Tensor | None] = [None] * len(tensors)
        for index, gradient in zip(wanted, found, strict=True):
            gradients[index] = gradient
        return gradients


def _run(formula: Formula, dim: int, further: int, *tensors: Tensor) -> tuple[Any, ...]:
    sliced, weights = tensors[: 2 + further], tensors[2 + further :]
    total = exact(sliced[0].new_zeros(()))
    # In float16 a gradient could be 0 before the loss is scaled; autograd casts it back after that.
    dtype = torch.float32 if sliced[0].dtype == torch.float16 else sliced[0].dtype
    cuts = list(pieces(sliced[0], dim))
    of_student = torch.empty_like(sliced[0], dtype=dtype) if len(cuts) != 1 else None
    of_weights = [torch.zeros_like(weight) for weight in weights]
    for piece in cuts:
        student, *others = cut(sliced, dim, piece)
        student = student.detach().requires_grad_()
        with torch.enable_grad():
            value = formula(student, *others)
        found = torch.autograd.grad(value, [student, *weights])
        total += value.detach()
        if of_student is None:
            of_student = in_layout_of(sliced[0], found[0].to(dtype))
        else:
            of_student.narrow(dim, *piece).copy_(found[0])
        for gradient, part in zip(of_weights, found[1:], strict=True):
            gradient += part
    return total, of_student, *[None] * (1 + further), *of_weights


def in_layout_of(feature: Tensor, gradient: Tensor) -> Tensor:
    """A gradient that can be changed in place: autograd gives a constant one without memory for each value."""
    if gradient.stride() == feature.stride():
        return gradient
    return torch.empty_like(feature, dtype=gradient.dtype).copy_(gradient)


def pieces(feature: Tensor, dim: int) -> Iterator[tuple[int, int]]:
    """Start and length of slices of about ``CHUNK`` elements along a dimension."""
    size, room = feature.shape[dim], CHUNK.get(feature.device.type, CHUNK["cuda"])
    if feature.device.type == "cpu":
        step = room * size // max(1, feature.numel())
    else:  # alike, and rather few: to start a piece takes a GPU as long as to compute it
        step = -(-size // max(1, round(feature.numel() / room)))
    step = max(1, step)
    for start in range(0, size, step):
        yield start, min(step, size - start)


def cut(tensors: Sequence[Tensor], dim: int, piece: tuple[int, int]) -> list[Tensor]:
    return [exact(tensor.narrow(dim, *piece)) for tensor in tensors]
