"""Measure segmenters on validation images."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from limbeck.core.modules import Example, device_of
from limbeck.data.order import evenly
from limbeck.models.model import Model
from limbeck.tasks.batches import held_out_of, on_device, val_batches
from limbeck.tasks.pictures import write_pictures
from limbeck.tasks.semantic.dataset import Masks
from limbeck.tasks.semantic.load import load_masks, load_val_masks
from limbeck.tasks.semantic.pictures import sheets
from limbeck.tasks.semantic.task import Semantic, padded
from limbeck.tasks.semantic.transforms import ValMasks
from limbeck.training.by_class import ByClass


class MaskValidation:
    """Validation images with masks."""

    def __init__(self, data: str, card: Mapping[str, Any], batch_size: int | None):
        self.options = {
            **held_out_of(card),
            "ignore_index": card["ignore_index"],
            "on_bad": card.get("on_bad_data", "error"),
            "seed": card["data_seed"],
        }
        self.place = Path(data)
        self.masks = load_val_masks(self.place, card["classes"], **self.options)
        self.classes, self.count, self.notes = self.masks.classes, len(self.masks), self.masks.notes
        self.by_class: ByClass | None = None
        self.batch_size = (batch_size or 8) if len(self.masks.sizes) == 1 else 1
        self.short_side = card["short_side"]
        self.data = ValMasks(self.masks, self.short_side)

    @cached_property
    def training(self) -> Masks:
        return load_masks(self.place, **self.options)[0]

    def measure(self, model: Model, *, teacher: bool = False) -> dict[str, float]:
        batches = val_batches(on_device(model.module), self.data, self.batch_size)
        task = Semantic(self.classes, model.inputs)
        metrics, self.by_class = task.evaluate(model.module, batches), task.by_class
        return metrics

    def example(self, model: Model, count: int) -> Example:
        image = padded(self.data[0]["image"][None], model.inputs)
        return image.repeat(count, 1, 1, 1).to(device_of(model.module))

    def thin(self, count: int) -> None:
        self.masks = self.masks.take(evenly(len(self.masks), count))
        self.data, self.count = ValMasks(self.masks, self.short_side), len(self.masks)

    def seen(self, model: Model, count: int, *, training: bool = False) -> list[Tensor]:
        data = ValMasks(self.training, self.short_side) if training else self.data
        return [data[index]["image"].float() / 255 for index in evenly(len(data), count)]

    def draw(self, models: Mapping[str, Model], count: int, folder: Path, score: float) -> None:
        write_pictures(sheets(self.masks, self.data, models, count), self.classes, folder)
