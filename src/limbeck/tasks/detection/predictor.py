"""Predict the objects of images."""

from __future__ import annotations

from collections.abc import Mapping
from glob import escape
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from limbeck.models.model import Model
from limbeck.tasks.batches import on_device
from limbeck.tasks.detection.pictures import outlined
from limbeck.tasks.detection.task import predict, run_lengths
from limbeck.tasks.detection.transforms import ShortSide
from limbeck.tasks.predictor import SCORE, Picture, pixels_of


class ObjectPredictor:
    """A detector that sees images at the size at which it was validated, and answers in their own pixels."""

    tells_by_colour = False

    def __init__(self, model: Model):
        self.module, self.classes = on_device(model.module.eval()), model.classes
        self.resize = ShortSide(model.card["short_side"], model.card["long_side"])

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

    def annotations(self, prediction: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        boxes, labels, scores = (prediction[name].tolist() for name in ("boxes", "labels", "scores"))
        masks = prediction.get("masks")
        found = []
        for index, ((left, top, right, bottom), label, score) in enumerate(zip(boxes, labels, scores, strict=True)):
            box = [round(each, 2) for each in (left, top, right - left, bottom - top)]
            outline = {"area": round(box[2] * box[3], 2)} if masks is None else outlined_by(masks[index])
            if min(*box[2:], outline["area"]) > 0:
                found.append({"category_id": label + 1, "bbox": box, "score": round(score, 4), "iscrowd": 0, **outline})
        return found

    def draw(self, image: Tensor, prediction: Mapping[str, Tensor], score: float = SCORE) -> Tensor:
        kept = prediction["scores"] >= score
        return outlined(image, classes=self.classes, **{name: value[kept] for name, value in prediction.items()})

    def write(self, name: str, prediction: Mapping[str, Tensor], folder: Path) -> None:
        """A PNG for each mask of an object, by its place in the json; none of an earlier prediction is left beside."""
        path = folder / "masks" / name
        for earlier in path.parent.glob(f"{escape(path.name)}-[0-9][0-9][0-9].png"):
            earlier.unlink()
        for index, mask in enumerate(prediction.get("masks", [])):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(255 * mask.to(torch.uint8).numpy()).save(path.with_name(f"{path.name}-{index:03d}.png"))


def outlined_by(mask: Tensor) -> dict[str, Any]:
    """The outline of a mask (H, W) bool as run lengths that json takes, and its area in square pixels."""
    counts = run_lengths(mask)["counts"].decode()
    return {"area": int(mask.sum()), "segmentation": {"size": list(mask.shape), "counts": counts}}
