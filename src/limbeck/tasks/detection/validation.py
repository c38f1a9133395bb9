"""Measure detectors on validation images."""

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
from limbeck.tasks.detection.dataset import Objects
from limbeck.tasks.detection.load import load_objects, load_val_objects
from limbeck.tasks.detection.models import gives_masks
from limbeck.tasks.detection.pictures import sheets
from limbeck.tasks.detection.task import Detection
from limbeck.tasks.detection.transforms import ValObjects, collate
from limbeck.tasks.pictures import write_pictures
from limbeck.training.by_class import ByClass


class ObjectValidation:
    """Validation images with objects."""

    def __init__(self, data: str, card: Mapping[str, Any], batch_size: int | None):
        self.batch_size, self.with_masks = batch_size or 8, card["task"] == "instance"
        self.options = {
            **held_out_of(card),
            "on_bad": card["on_bad_data"],
            "outlines": self.with_masks,
            "seed": card["data_seed"],
        }
        self.place = Path(data)
        self.objects = load_val_objects(self.place, card["classes"], **self.options)
        self.classes, self.count, self.notes = self.objects.classes, len(self.objects), self.objects.notes
        self.by_class: ByClass | None = None
        self.sides = card["short_side"], card["long_side"]
        self.data = ValObjects(self.objects, *self.sides)

    @cached_property
    def training(self) -> Objects:
        return load_objects(self.place, **self.options)[0]

    def measure(self, model: Model, *, teacher: bool = False) -> dict[str, float]:
        task = Detection(self.objects, masks=self.with_masks and gives_masks(model.module))
        batches = val_batches(on_device(model.module), self.data, self.batch_size, collate)
        metrics, self.by_class = task.evaluate(model.module, batches), task.by_class
        return metrics

    def example(self, model: Model, count: int) -> Example:
        image = self.data[0]["image"].to(device_of(model.module)).float() / 255
        return ([image] * count,)

    def thin(self, count: int) -> None:
        self.objects = self.objects.take(evenly(len(self.objects), count))
        self.data, self.count = ValObjects(self.objects, *self.sides), len(self.objects)

    def seen(self, model: Model, count: int, *, training: bool = False) -> list[Tensor]:
        data = ValObjects(self.training, *self.sides) if training else self.data
        return [data[index]["image"].float() / 255 for index in evenly(len(data), count)]

    def draw(self, models: Mapping[str, Model], count: int, folder: Path, score: float) -> None:
        write_pictures(sheets(self.objects, self.data, models, count, score), self.classes, folder)
