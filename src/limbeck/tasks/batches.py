"""Validation batches, for what measures models apart from training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import nn
from torch.utils.data import DataLoader, Dataset


def on_device(model: nn.Module) -> nn.Module:
    """The model, on a GPU where there is one."""
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def val_batches(model: nn.Module, data: Dataset[Any], size: int, collate: Any = None) -> Iterator[Any]:
    """Batches on the device of a model."""
    device = next(model.parameters()).device
    return (send_to_device(batch, device) for batch in DataLoader(data, size, collate_fn=collate))
