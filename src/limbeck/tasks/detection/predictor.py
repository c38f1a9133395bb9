"""Predict the objects of images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from limbeck.models.model import Model
from limbeck.tasks.batches import on_device
from limbeck.tasks.detection.pictures import outlined
from limbeck.tasks.detection.task import predict
from limbeck.tasks.detection.transforms import resize_to
from limbeck.tasks.predictor import Picture, pixels_of

SCORE = 0.3  # of the least certain object that is drawn


class ObjectPredictor:
    """A detector that sees images at the size at which it was validated, and answers in their own pixels."""

    tells_by_colour = False

    def __init__(self, model: Model):
        self.module, self.classes = on_device(model.module.eval()), model.classes
        self.resize = resize_to(model.card["short_side"], model.card["long_side"])

    @torch.no_grad()
    def predict(self, image: Picture) -> dict[str, Tensor]:
        pixels = pixels_of(image)
        return predict(self.module, self.resize(pixels), tuple(pixels.shape[1:]))

    def describe(self, prediction: Mapping[str, Tensor]) -> dict[str, Any]:
        boxes, labels, scores = (prediction[name].tolist() for name in ("boxes", "labels", "scores"))
        objects = [
            {"label": self.classes[label], "score": round(score, 4), "box": [round(side, 1) for side in box]}
            for box, label, score in zip(boxes, labels, scores, strict=True)
        ]
        return {"objects": objects}

    def draw(self, image: Tensor, prediction: Mapping[str, Tensor]) -> Tensor:
        kept = prediction["scores"] >= SCORE
        return outlined(image, classes=self.classes, **{name: value[kept] for name, value in prediction.items()})

    def write(self, name: str, prediction: Mapping[str, Tensor], folder: Path) -> None:
        """A PNG for each mask of an object, by its place in the json."""
        for index, mask in enumerate(prediction.get("masks", [])):
            path = folder / "masks" / f"{name}-{index:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(255 * mask.to(torch.uint8).numpy()).save(path)
