"""The attention that FGD and FKD share: which positions and which channels of a feature are strong."""

from __future__ import annotations

import torch
from torch import Tensor


def over_positions(feature: Tensor, temperature: float) -> Tensor:
    """From (B, C, H, W) to (B, 1, H, W): H * W times the softmax over the positions of the mean absolute value."""
    mean: Tensor = torch.linalg.vector_norm(feature, 1, dim=1, keepdim=True) / feature.shape[1]
    return (mean.flatten(2) / temperature).softmax(-1).view_as(mean) * (mean.shape[2] * mean.shape[3])


def over_channels(feature: Tensor, temperature: float) -> Tensor:
    """From (B, C, H, W) to (B, C, 1, 1): C times the softmax over the channels of the mean absolute value."""
    mean: Tensor = torch.linalg.vector_norm(feature, 1, dim=(2, 3), keepdim=True) / feature[0, 0].numel()
    return (mean / temperature).softmax(1) * mean.shape[1]
