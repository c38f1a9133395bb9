"""The best of many, where some are equal: the first of them, in torch as in ONNX."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class FirstOfEqual(TorchFunctionMode):
    """Inside of it ``torch.topk`` takes the first of equal values, as ONNX's TopK must; alone it takes any.

    A detector of queries begins with the best places of an image, and where two are as good, as on plain ground or
    before it learned much, another one makes another query, which all others look at.
    """

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in (torch.topk, Tensor.topk):
            return _first_of_equal(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


def _first_of_equal(values: Tensor, k: int, dim: int = -1, largest: bool = True) -> tuple[Tensor, Tensor]:
    ordered, places = values.sort(dim=dim, descending=largest, stable=True)
    return ordered.narrow(dim, 0, k), places.narrow(dim, 0, k)


def stable_sort(values: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
    """``aten.sort.stable`` in ONNX, of which torch 2.14 has no translation."""
    from onnxscript import opset18

    axis = dim % len(values.shape)
    count = opset18.Shape(values, start=axis, end=axis + 1)
    return opset18.TopK(values, count, axis=axis, largest=int(descending), sorted=1)
