"""In which precision values are compared."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def exact(tensor: Tensor) -> Tensor:
    """In float32, if it is in low precision."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def as_weights(tensor: Tensor, module: nn.Module) -> Tensor:
    """In the precision of a module's weights, if it has any."""
    weight = next(module.parameters(), None)
    return tensor if weight is None else tensor.to(weight.dtype)
