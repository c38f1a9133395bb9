"""Loss and gradients in one pass over pieces of a batch, so that no temporary of the whole batch's size is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = {"cpu": 2**21, "cuda": 2**24}  # elements of the largest temporary: measured on CPU, chosen on CUDA
Formula = Callable[..., Tensor]  # (student, teacher, *further) -> scalar


def sum_of_pieces(
    formula: Formula, student: Tensor, teacher: Tensor, *further: Tensor, weights: Sequence[Tensor] = (), dim: int = 0
) -> Tensor:
    """The sum of a formula over slices of the features, for a formula whose value is such a sum.

    The gradients are made slice by slice in the forward pass; what is kept for the backward pass is the gradient of the
    student's feature, and nothing else of its size. Without gradients, or compiled, it is the formula as it stands.

    Args:
        formula: Of (student, teacher, *further), each sliced alike.
        student, teacher: The features; the teacher's gets no gradient.
        *further: What else is sliced with them; it gets no gradient.
        weights: Weights that the formula uses, of which those that are trained get gradients.
        dim: Along which the slices are cut: 0 where images are independent of each other, 1 where channels are.
    """
    if torch.compiler.is_compiling():
        return formula(student, teacher, *further)
    if not torch.is_grad_enabled():
        every = (student, teacher, *further)
        return torch.stack([formula(*cut(every, dim, piece)) for piece in pieces(student, dim)]).sum()
    trained = [weight for weight in weights if weight.requires_grad]
    total: Tensor = _Pieces.apply(formula, dim, len(further), student, teacher, *further, *trained)
    return total


class _Pieces(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, formula: Formula, dim: int, further: int, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors)
        ctx.arguments = formula, dim, further
        total, ctx.gradients = _run(formula, dim, further, tensors)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        # Given away, so that they can be scaled in place; a second backward over a retained graph makes them anew.
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            formula, dim, further = ctx.arguments
            _, gradients = _run(formula, dim, further, ctx.saved_tensors)
        student, *weights = (gradient.mul_(upstream) for gradient in gradients)
        return (None, None, None, student, *[None] * (1 + ctx.arguments[2]), *weights)


def _run(formula: Formula, dim: int, further: int, tensors: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """The value, and the gradients of the student's feature and of the weights."""
    sliced, weights = tensors[: 2 + further], tensors[2 + further :]
    total = torch.zeros((), dtype=sliced[0].dtype, device=sliced[0].device)
    gradients = [torch.empty_like(sliced[0]), *map(torch.zeros_like, weights)]
    for piece in pieces(sliced[0], dim):
        student, *others = cut(sliced, dim, piece)
        student = student.detach().requires_grad_()
        with torch.enable_grad():
            value = formula(student, *others)
        found = torch.autograd.grad(value, [student, *weights])
        total += value.detach()
        gradients[0].narrow(dim, *piece).copy_(found[0])
        for gradient, part in zip(gradients[1:], found[1:], strict=True):
            gradient += part
    return total, gradients


def pieces(feature: Tensor, dim: int) -> Iterator[tuple[int, int]]:
    """Start and length of slices of about ``CHUNK`` elements along a dimension."""
    size = feature.shape[dim]
    room = CHUNK.get(feature.device.type, CHUNK["cuda"])
    step = max(1, room * size // max(1, feature.numel()))
    for start in range(0, size, step):
        yield start, min(step, size - start)


def cut(tensors: Sequence[Tensor], dim: int, piece: tuple[int, int]) -> list[Tensor]:
    return [tensor.narrow(dim, *piece) for tensor in tensors]
