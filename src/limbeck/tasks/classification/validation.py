"""Measure classifiers on validation images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from limbeck.core.modules import Example, device_of
from limbeck.data.inputs import Preprocess
from limbeck.data.order import evenly
from limbeck.models.model import Model
from limbeck.tasks.batches import held_out_of, on_device, val_batches
from limbeck.tasks.classification.dataset import Images
from limbeck.tasks.classification.load import load_images, load_val_images
from limbeck.tasks.classification.task import Classification
from limbeck.tasks.classification.transforms import ValImages
from limbeck.training.by_class import ByClass


class ImageValidation:
    """Validation images with labels, and what the teacher predicts for them."""

    def __init__(self, data: str, card: Mapping[str, Any], batch_size: int | None):
        self.batch_size = batch_size or 128
        self.options = {**held_out_of(card), "on_bad": card.get("on_bad_data", "error"), "seed": card["data_seed"]}
        self.place = data
        self.images = load_val_images(data, card["classes"], **self.options)
        self.classes, self.count, self.notes = self.images.classes, len(self.images), self.images.notes
        self.teacher_predictions: Tensor | None = None
        self.by_class: ByClass | None = None

    @cached_property
    def training(self) -> Images:
        return load_images(self.place, **self.options)[0]

    def measure(self, model: Model, *, teacher: bool = False) -> dict[str, float]:
        task = Classification(len(self.classes), model.inputs)
        batches = val_batches(on_device(model.module), self._data(model, self.images), self.batch_size)
        if teacher:
            metrics = task.evaluate_teacher(model.module, batches)
            self.teacher_predictions = task.teacher_predictions
        else:
            task.teacher_predictions = self.teacher_predictions
            metrics = task.evaluate(model.module, batches)
        self.by_class = task.by_class
        return metrics

    def _data(self, model: Model, images: Images) -> ValImages:
        """Images at the size at which a run was trained, or else that the model takes."""
        return ValImages(images, model.card.get("load_size") or min(model.inputs.square, *images.typical_size()))

    def example(self, model: Model, count: int) -> Example:
        image: Tensor = Preprocess(model.inputs)(self._data(model, self.images)[0]["image"][None])
        return image.repeat(count, 1, 1, 1).to(device_of(model.module))

    def thin(self, count: int) -> None:
        self.images = self.images.take(evenly(len(self.images), count))
        self.count = len(self.images)

    def seen(self, model: Model, count: int, *, training: bool = False) -> list[Tensor]:
        images = self.training if training else self.images
        data = self._data(model, images)
        to_size = Preprocess(replace(model.inputs, mean=(0.0,) * 3, std=(1.0,) * 3))
        return [to_size(data[index]["image"][None])[0] for index in evenly(len(images), count)]

    def draw(self, models: Mapping[str, Model], count: int, folder: Path, score: float) -> None:
        raise ValueError("--pictures shows masks and boxes, which an image classifier does not give")
