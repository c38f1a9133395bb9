"""In which precision values are compared."""

from __future__ import annotations

import torch
from torch import Tensor


def exact(tensor: Tensor) -> Tensor:
    """In float32, if it is in low precision."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
