"""What a network costs: parameters and multiplications."""

from __future__ import annotations

import torch
from torch import nn

from limbeck.compress.passes import on_device_of
from limbeck.core.modules import Example, call, evaluating


def parameters_of(model: nn.Module) -> int:
    """The number of parameters, each counted once where layers share it."""
    return sum(parameter.numel() for parameter in model.parameters())


def flops_of(model: nn.Module, example: Example) -> int:
    """Floating point operations of a forward pass, two for each multiplication, as torch counts them."""
    return flops_by_module(model, example)[""]


@torch.no_grad()
def flops_by_module(model: nn.Module, example: Example) -> dict[str, int]:
    """Likewise of each submodule that runs, by its path; of the model itself by the empty one."""
    from torch.utils.flop_counter import FlopCounterMode  # imports triton

    with evaluating(model), FlopCounterMode(display=False) as counter:
        call(model, on_device_of(model, example))
    root = type(model).__name__
    counts = {name: sum(each.values()) for name, each in counter.get_flop_counts().items()}
    by_path = {name.removeprefix(root).lstrip("."): count for name, count in counts.items() if name != "Global"}
    return {**by_path, "": counter.get_total_flops()}
