"""Cityscapes as it is published: ``leftImg8bit`` and ``gtFine``."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from limbeck.data.parts import Part, Source, parts_in
from limbeck.data.problems import OnBadData, left_out
from limbeck.tasks.semantic.classes import IGNORED, UNKNOWN, Labels, with_classes
from limbeck.tasks.semantic.dataset import Masks, checked, without_mask

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
    masks = {
        path: data / "gtFine" / part / path.parent.name / path.name.replace("_leftImg8bit", "_gtFine_labelIds")
        for path in images
    }
    there = {image: mask for image, mask in masks.items() if mask.is_file()}
    problems = [without_mask(image, mask) for image, mask in masks.items() if image not in there]
    notes = left_out(problems, on_bad, of=data / "leftImg8bit" / part, some_left=bool(there))
    meaning = torch.full((256,), IGNORED, dtype=torch.int16)
    meaning[34:255] = UNKNOWN
    meaning[list(CITYSCAPES)] = torch.arange(len(CITYSCAPES), dtype=torch.int16)
    labels = with_classes(Labels(list(CITYSCAPES.values()), meaning), classes, data)
    origin = f"of Cityscapes' {part} images in {data}"
    found = Masks(list(there), list(there.values()), labels, notes, origin=origin, on_bad=on_bad)
    return checked(found, data / "leftImg8bit" / part)
