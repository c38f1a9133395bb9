"""Cityscapes as it is published: ``leftImg8bit`` and ``gtFine``."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from limbeck.data.parts import Part, Source, parts_in
from limbeck.data.problems import OnBadData
from limbeck.tasks.semantic.classes import IGNORED, UNKNOWN, Labels, with_classes
from limbeck.tasks.semantic.dataset import Masks, checked

# Which of the 34 labels are trained on, in the order of their train ids, as the dataset's authors define them.
CITYSCAPES = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
    20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car", 27: "truck",
    28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle",
}  # fmt: skip


def find_cityscapes(data: Path, on_bad: OnBadData) -> dict[Part, Source[Masks]]:
    parts = parts_in(data / "gtFine") or {"train": data / "gtFine" / "train"}
    return {part: partial(read_cityscapes, data, path.name, on_bad=on_bad) for part, path in parts.items()}


def read_cityscapes(data: Path, part: str, classes: list[str] | None = None, *, on_bad: OnBadData = "error") -> Masks:
    """A part of it, with 19 classes; the other labels are of no class."""
    images = sorted((data / "leftImg8bit" / part).rglob("*_leftImg8bit.png"))
    if not images:
        raise ValueError(f"no *_leftImg8bit.png below {data / 'leftImg8bit' / part}")
    masks = [
        data / "gtFine" / part / path.parent.name / path.name.replace("_leftImg8bit", "_gtFine_labelIds")
        for path in images
    ]
    if missing := [path for path in masks if not path.is_file()]:
        raise ValueError(f"{len(missing)} images have no mask, the first should be {missing[0]}")
    meaning = torch.full((256,), IGNORED, dtype=torch.int16)
    meaning[34:255] = UNKNOWN
    meaning[list(CITYSCAPES)] = torch.arange(len(CITYSCAPES), dtype=torch.int16)
    labels = with_classes(Labels(list(CITYSCAPES.values()), meaning), classes, data)
    origin = f"of Cityscapes' {part} images in {data}"
    return checked(Masks(images, masks, labels, origin=origin, on_bad=on_bad), data / "leftImg8bit" / part)
