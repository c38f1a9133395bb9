"""The gradients that a backward pass brings to a layer of the student: the criterion's, and everything else's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from limbeck.core.capture import Layer

Take = Callable[[Tensor, Tensor], None]  # a criterion's gradient, before and after it was scaled for the student


class Measurement:
    """Watches the backward pass of one forward pass, in which it adds squared norms to the sums of each match.

    A criterion reads a mark on what the layer returned, so that its gradient is seen apart, at the tensors from which
    the feature is read and at no others. The task's gradient is what comes to these tensors in all, less the gradients
    of all marks. It holds the gradients of marks from when they come until the whole one has come.
    """

    def __init__(self) -> None:
        self._sources: dict[int, _Source] = {}  # by the identity of the tensor, which the forward pass keeps alive

    def read(self, layer: Layer, output: Any, sums: Tensor, factor: Tensor, unit: Tensor) -> Tensor:
        """The feature, read from marks on what a layer returned.

        Args:
            layer: How to read.
            output: What the layer returned.
            sums: (3,), to which the squared norms of the task's and of the criterion's gradient are added.
            factor: Multiplies the gradient that goes on to the student.
            unit: Multiplies the criterion's gradient before its norm is added.
        """
        mark = partial(self._mark, sums, factor, unit)
        read: Callable[[Any], Tensor] = layer.read or (lambda output: output)
        if any(isinstance(leaf, Tensor) for leaf in tree_leaves(output)):
            return read(tree_map_only(Tensor, mark, output))
        return mark(read(output))  # of an object that hides its tensors

    def _mark(self, sums: Tensor, factor: Tensor, unit: Tensor, tensor: Tensor) -> Tensor:
        if not tensor.requires_grad:
            return tensor
        if id(tensor) not in self._sources:
            self._sources[id(tensor)] = _Source(tensor)
        source = self._sources[id(tensor)]
        marked: Tensor = _Mark.apply(tensor, factor, partial(source.take, sums, unit))
        return marked


class _Source:
    """A tensor that a layer returned. It is not held, or tensor and hook would keep each other."""

    def __init__(self, tensor: Tensor) -> None:
        self._parts: list[tuple[Tensor, Tensor]] = []  # sums of a match, gradient of its mark
        tensor.register_hook(self._take_all)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def take(self, sums: Tensor, unit: Tensor, gradient: Tensor, scaled: Tensor) -> None:
        sums[1] += (norm(gradient) * unit).square()
        self._parts.append((sums, scaled))

    @torch.no_grad()
    def _take_all(self, gradient: Tensor) -> None:
        parts, self._parts = self._parts, []
        if not parts:
            return
        rest = gradient
        for _, part in parts:
            rest = rest - part
        square = norm(rest).square()
        for sums in {id(sums): sums for sums, _ in parts}.values():
            sums[0] += square


def norm(tensor: Tensor) -> Tensor:
    """Norm of all elements, in float32 at least: squares have no place in half precision."""
    value: Tensor = tensor.norm(dtype=torch.promote_types(tensor.dtype, torch.float32))
    return value


class _Mark(torch.autograd.Function):
    """The tensor as it is; the gradient is multiplied by the factor, and shown before and after that."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, factor: Tensor, take: Take) -> Tensor:
        ctx.save_for_backward(factor)
        ctx.take = take
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (factor,) = ctx.saved_tensors
        scaled = gradient * factor
        ctx.take(gradient, scaled)
        return scaled, None, None
