"""A part of the teacher that gradients pass through, and that nobody trains, counts or saves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Frozen(nn.Module):
    """A module in eval mode with fixed weights: no parameters, no ``state_dict()``, but moved with what holds it.

    Args:
        module: Taken as it is, and frozen; give a copy where it is to be trained elsewhere.
    """

    module: nn.Module

    def __init__(self, module: nn.Module):
        super().__init__()
        self.__dict__["module"] = module.eval().requires_grad_(False)  # no submodule

    def forward(self, *features: Tensor) -> Any:
        weight = next(self.module.parameters(), None)
        if weight is not None:
            features = tuple(feature.to(weight.dtype) for feature in features)
        return self.module(*features)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Frozen:
        with torch.no_grad():
            self.module._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self
