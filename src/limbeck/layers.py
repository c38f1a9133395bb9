"""What features a model has, found by running it once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.capture import Layer, evaluating
from limbeck.projectors import channels_first, tokens_to_map


@dataclass(frozen=True)
class Found:
    """A submodule's output, as the submodules table shows it."""

    path: str
    kind: str  # "map", "map (H, W, C)", "tokens", "vector" or "other"
    shape: tuple[int, ...]
    tensor: Tensor
    version: int  # differs from the tensor's own once a later module has changed it in place

    @property
    def layer(self) -> Layer:
        """Where it is, with how to read it as a map (B, C, H, W) if it is spatial."""
        if self.kind == "map (H, W, C)":
            return Layer(self.path, channels_first)
        if self.kind == "tokens":
            count = self.shape[1]
            return Layer(self.path, tokens_to_map(prefix=count - isqrt(count) ** 2))
        return Layer(self.path)

    def grid(self) -> tuple[int, int] | None:
        """Height and width, where it is spatial."""
        if self.kind == "tokens":
            return (isqrt(self.shape[1]), isqrt(self.shape[1]))
        return {"map": self.shape[2:4], "map (H, W, C)": self.shape[1:3]}.get(self.kind)  # type: ignore[return-value]


@torch.no_grad()
def survey(model: nn.Module, *inputs: Any) -> list[Found]:
    """Run a model once in eval mode, and list what its submodules gave, in the order in which they finished.

    Args:
        model: Any module; its modes are restored.
        *inputs: What to call it with; square images let a map kept as (B, H, W, C) be told apart.
    """
    found: list[Found] = []
    hooks = [module.register_forward_hook(partial(_record, found, path)) for path, module in model.named_modules()]
    try:
        with evaluating(model):
            model(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def last_feature(model: nn.Module, *inputs: Any) -> Layer:
    """The last spatial feature of a model, before it is pooled: a map, or a transformer's patch tokens read as one.

    Raises:
        ValueError: No submodule gives one with more than one position.
    """
    return last_spatial(model, survey(model, *inputs)).layer


def last_spatial(model: nn.Module, surveyed: list[Found]) -> Found:
    """``last_feature`` among what a survey found already."""
    spatial = [
        found
        for found in surveyed
        if (grid := found.grid()) and grid[0] * grid[1] > 1 and found.tensor._version == found.version
    ]
    if not spatial:
        raise ValueError(
            f"no submodule of {type(model).__name__} gives a map or tokens with more than one position; "
            "use larger images, or name a layer (limbeck layers shows what there is)"
        )
    same = [found for found in spatial if found.tensor is spatial[-1].tensor]
    return min(same, key=lambda found: found.path.count("."))  # the outermost module that gives it


def _record(found: list[Found], path: str, module: nn.Module, inputs: Any, output: Any) -> None:
    if isinstance(output, Tensor):
        found.append(Found(path, _kind(output), tuple(output.shape), output, output._version))


def _kind(output: Tensor) -> str:
    if output.ndim == 4:
        _, first, second, third = output.shape
        return "map (H, W, C)" if first == second != third else "map"
    return {3: "tokens", 2: "vector"}.get(output.ndim, "other")
