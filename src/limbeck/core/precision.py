"""In which precision values are compared."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def exact(tensor: Tensor) -> Tensor:
    """In float32, if it is in low precision."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def as_weights(tensor: Tensor, module: nn.Module) -> Tensor:
    """In the precision of a module's weights, if it has any."""
    weight = next(module.parameters(), None)
    return tensor if weight is None else tensor.to(weight.dtype)


@contextmanager
def as_convolutions(device: torch.device) -> Iterator[None]:
    """Give products of matrices the precision that torch gives float32 convolutions.

    By default a GPU takes TensorFloat-32 for convolutions, and not for products; what stands for a 1x1 convolution
    would else be several times as slow as one.
    """
    matmul, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn.conv  # type: ignore[attr-defined]
    if device.type != "cuda" or matmul.fp32_precision == (wanted := convolutions.fp32_precision) or wanted != "tf32":
        yield
        return
    before = matmul.fp32_precision
    matmul.fp32_precision = wanted
    try:
        yield
    finally:
        matmul.fp32_precision = before
