"""Predict the class of every pixel of images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from limbeck.core.modules import device_of
from limbeck.models.model import Model
from limbeck.tasks.batches import on_device
from limbeck.tasks.predictor import SCORE, Picture, pixels_of
from limbeck.tasks.semantic.pictures import overlay
from limbeck.tasks.semantic.task import predict


class MaskPredictor:
    """A segmenter that sees images at the size at which it was validated, and answers at their own."""

    tells_by_colour = True

    def __init__(self, model: Model):
        self.module, self.inputs, self.classes = on_device(model.module.eval()), model.inputs, model.classes
        self.resize = v2.Resize(model.card["short_side"], antialias=True)

    @torch.no_grad()
    def predict(self, image: Picture) -> dict[str, Tensor]:
        pixels = pixels_of(image)
        seen = self.resize(pixels).unsqueeze(0).to(device_of(self.module))
        return {"mask": predict(self.module, seen, self.inputs, pixels.shape[1:])[0].cpu()}

    def describe(self, prediction: Mapping[str, Tensor]) -> dict[str, Any]:
        """The share of the pixels by class."""
        counts = prediction["mask"].flatten().bincount(minlength=len(self.classes)).tolist()
        total = prediction["mask"].numel()
        return {"shares": {name: round(n / total, 4) for name, n in zip(self.classes, counts, strict=True) if n}}

    def annotations(self, prediction: Mapping[str, Tensor]) -> None:
        """There are no objects."""

    def draw(self, image: Tensor, prediction: Mapping[str, Tensor], score: float = SCORE) -> Tensor:
        return overlay(image, prediction["mask"], len(self.classes))

    def write(self, name: str, prediction: Mapping[str, Tensor], folder: Path) -> None:
        """The index mask as a PNG, by the order of the classes."""
        path = folder / "masks" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(prediction["mask"].to(torch.uint8).numpy()).save(path)
