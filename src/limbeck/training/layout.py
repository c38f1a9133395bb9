"""The memory format in which a model is trained."""

from __future__ import annotations

import torch
from torch import nn


def lay_out(model: nn.Module, device: torch.device) -> str | None:
    """Bring a model's weights, and so its maps, to channels_last in place; a sentence where it is left as it was.

    That is on a CPU, if it has a 1x1 convolution with a stride, of fewer than eight channels: torch 2.14.1 writes
    beyond its memory in the backward pass of such a convolution in channels_last, which ends the process or worse.
    """
    refused = next((path for path, layer in model.named_modules() if _is_unsound(layer)), None)
    if device.type == "cpu" and refused is not None:
        return (
            f"the model stays in torch's own memory format: on a CPU torch cannot train {refused}, a 1x1 convolution "
            "with a stride, of fewer than eight channels, in channels_last"
        )
    model.to(memory_format=torch.channels_last)
    return None


def _is_unsound(layer: nn.Module) -> bool:
    return (
        isinstance(layer, nn.Conv2d)
        and layer.kernel_size == (1, 1)
        and layer.stride != (1, 1)
        and layer.groups == 1
        and layer.in_channels < 8
    )
