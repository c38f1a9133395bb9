"""Predict the class of images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limbeck.core.modules import device_of
from limbeck.data.images import pil_to_tensor, to_pil_image
from limbeck.data.inputs import Preprocess
from limbeck.models.model import Model
from limbeck.tasks.batches import on_device
from limbeck.tasks.classification.transforms import augmentation
from limbeck.tasks.lettering import drawing_on, size_on
from limbeck.tasks.predictor import SCORE, Picture, pixels_of

SHOWN = 5  # classes of which the probability is told


class ImagePredictor:
    """A classifier that takes images of any size, as it was validated: the middle square of each."""

    tells_by_colour = False

    def __init__(self, model: Model):
        self.module, self.classes = on_device(model.module.eval()), model.classes
        self.crop = augmentation("none", model.card["load_size"])
        self.preprocess = Preprocess(model.inputs)

    @torch.no_grad()
    def predict(self, image: Picture) -> dict[str, Tensor]:
        device = device_of(self.module)
        pixels = self.crop(pixels_of(image)).unsqueeze(0).to(device)
        return {"probabilities": self.module(self.preprocess(pixels)).float().softmax(1)[0].cpu()}

    def describe(self, prediction: Mapping[str, Tensor]) -> dict[str, Any]:
        best = prediction["probabilities"].topk(min(SHOWN, len(self.classes)))
        names = [self.classes[index] for index in best.indices.tolist()]
        probabilities = [round(value, 4) for value in best.values.tolist()]
        return {"label": names[0], "probabilities": dict(zip(names, probabilities, strict=True))}

    def annotations(self, prediction: Mapping[str, Tensor]) -> None:
        """There are no objects."""

    def draw(self, image: Tensor, prediction: Mapping[str, Tensor], score: float = SCORE) -> Tensor:
        picture = to_pil_image(image)
        draw = drawing_on(picture, "".join(self.classes), size_on(*image.shape[1:]))
        value, index = prediction["probabilities"].max(0)
        text = f"{self.classes[int(index)]} {value:.0%}"
        draw.rectangle(draw.textbbox((2, 2), text), fill="white")
        draw.text((2, 2), text, fill="black")
        return pil_to_tensor(picture)

    def write(self, name: str, prediction: Mapping[str, Tensor], folder: Path) -> None:
        """Everything is in the json."""
