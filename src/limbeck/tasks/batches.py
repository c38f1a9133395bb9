"""Validation batches, for what measures models apart from training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypedDict

import torch
from accelerate.utils import send_to_device
from torch import nn
from torch.utils.data import DataLoader, Dataset

from limbeck.core.modules import device_of
from limbeck.data.parts import HeldOut


class HeldOutOptions(TypedDict):
    val_data: Path | None
    split: HeldOut | None


def held_out_of(card: Mapping[str, Any]) -> HeldOutOptions:
    """Where the validation images are, as a card has it that was told what the run was given."""
    val_data = card.get("val_data")
    return {"val_data": None if val_data is None else Path(val_data), "split": card.get("split")}


def on_device(model: nn.Module) -> nn.Module:
    """The model, on a GPU where there is one."""
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def val_batches(model: nn.Module, data: Dataset[Any], size: int, collate: Any = None) -> Iterator[Any]:
    """Batches on the device of a model."""
    device = device_of(model)
    return (send_to_device(batch, device) for batch in DataLoader(data, size, collate_fn=collate))
