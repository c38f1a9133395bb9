"""Images with a mask of classes each: folders of both, and Cityscapes as it is published."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from limbeck.data.images import EXTENSIONS, opened, read_image, said_otherwise

IGNORED = 255  # in a mask: of no class, for loss and metrics alike
UNKNOWN = -1

# Which of Cityscapes' 34 labels are trained on, in the order of their train ids, as the dataset's authors define them.
CITYSCAPES = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
    20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car", 27: "truck",
    28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle",
}  # fmt: skip


@dataclass(frozen=True)
class Masks:
    """Images and their masks, and what the values in a mask's file mean."""

    images: Sequence[Path]
    masks: Sequence[Path]
    classes: list[str]
    meaning: Tensor  # (256) int16: the class of each value, or IGNORED, or UNKNOWN
    notes: list[str] = field(default_factory=list)  # what the user should read
    sizes: frozenset[tuple[int, int]] = frozenset()  # heights and widths that there are

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        """Image (3, H, W) and mask (1, H, W), uint8; ``ValueError`` that names the file where something is wrong."""
        return read_image(self.images[index]), self.read_mask(index)

    def read_mask(self, index: int) -> Tensor:
        """Classes (1, H, W), uint8."""
        path = self.masks[index]
        values = read_values(path)
        classes = self.meaning[values.long()]
        if (classes == UNKNOWN).any():
            strange = torch.unique(values[classes == UNKNOWN]).tolist()
            raise ValueError(
                f"{path} holds the values {strange[:10]}, which stand for none of the {len(self.classes)} classes; if "
                "one of them means that a pixel has no class, pass --ignore-index"
            )
        return classes.to(torch.uint8)

    def take(self, indices: Sequence[int]) -> Masks:
        chosen = [[paths[i] for i in indices] for paths in (self.images, self.masks)]
        return dataclasses.replace(self, images=chosen[0], masks=chosen[1])


def read_values(path: Path) -> Tensor:
    """The values (1, H, W) of an index mask, uint8."""
    with opened(path, "a mask") as mask:
        if mask.mode.startswith("I") and 0 <= (wide := np.asarray(mask)).min() <= wide.max() <= IGNORED:
            mask = Image.fromarray(wide.astype(np.uint8))  # more bits a pixel than are used
        if mask.mode in ("L", "P", "1"):
            values: Tensor = pil_to_tensor(mask)
            return values
    raise ValueError(
        f"{path} is no index mask but of mode {mask.mode}: a mask holds one class index, 0 to 254, for each pixel"
    )


def load_masks(data: Path, *, ignore_index: int | None = None, seed: int = 0) -> tuple[Masks, Masks]:
    """Training and validation images with their masks, every mask read once and looked over.

    Args:
        data: A folder with ``train/images``, ``train/masks`` and ``val/`` or ``test/`` likewise; one with ``images``
            and ``masks``, of which a tenth is split off by seed; each pair has one stem. ``classes.txt`` in it names a
            class a line, in the order of their values, or ``VALUE NAME`` a line. Or Cityscapes: ``leftImg8bit`` and
            ``gtFine``.
        ignore_index: A value in the masks, beside 255, for pixels that count for nothing.
        seed: Of the split.

    Raises:
        ValueError: Files are missing, or a mask cannot be read, has another size than its image, or holds unknown
            values.
    """
    if not data.is_dir():
        raise ValueError(f"no folder {data}; it should hold images/ and masks/, or train/ and val/ with these")
    if (data / "gtFine").is_dir():
        return looked_over(_cityscapes(data, "train")), looked_over(_cityscapes(data, "val"))
    classes, meaning = read_classes(data / "classes.txt", ignore_index)
    parts = [part for part in (data / "train", data / "val", data / "test") if (part / "images").is_dir()]
    if len(parts) >= 2 and parts[0].name == "train":
        train, val = (looked_over(_pairs(part, classes, meaning)) for part in parts[:2])
        return train, val
    folder = parts[0] if parts else data
    every = looked_over(_pairs(folder, classes, meaning))
    order = torch.randperm(len(every), generator=torch.Generator().manual_seed(seed)).tolist()
    held_out = max(1, round(0.1 * len(every)))
    if held_out == len(every):
        raise ValueError(f"{folder} has one image only; a split into training and validation needs two")
    return every.take(sorted(order[held_out:])), every.take(sorted(order[:held_out]))


def read_classes(path: Path, ignore_index: int | None) -> tuple[list[str], Tensor]:
    """Names of the classes, and the class of each value (256)."""
    if not path.is_file():
        raise ValueError(f"no {path}; it should name a class a line, in the order of their values in the masks")
    lines = [line.split("#")[0].strip() for line in path.read_text().splitlines()]
    named: dict[int, str] = {}
    if ignore_index is not None and not 0 <= ignore_index <= IGNORED:
        raise ValueError(f"ignore_index is {ignore_index}; masks hold values from 0 to 255")
    for line in filter(None, lines):
        value, _, name = line.partition(" ")
        number, name = (int(value), name.strip()) if value.isdigit() and name else (len(named), line)
        if number in named or number >= IGNORED:
            raise ValueError(f"{path}: the value {number} of {name!r} is taken, or above 254")
        named[number] = name
    if ignore_index in named:
        raise ValueError(f"{path} names the class {named[ignore_index]!r} of the value that --ignore-index leaves out")
    if len(named) < 2:
        raise ValueError(f"{path} names {len(named)} classes; there should be two or more")
    return list(named.values()), meaning_of(named, ignore_index)


def meaning_of(named: dict[int, str], ignore_index: int | None) -> Tensor:
    meaning = torch.full((256,), UNKNOWN, dtype=torch.int16)
    meaning[list(named)] = torch.arange(len(named), dtype=torch.int16)
    meaning[[IGNORED, *([] if ignore_index is None else [ignore_index])]] = IGNORED
    return meaning


def _pairs(folder: Path, classes: list[str], meaning: Tensor) -> Masks:
    for part in ("images", "masks"):
        if not (folder / part).is_dir():
            raise ValueError(f"no folder {folder / part}; masks lie beside images, with the same stems")
    images = _by_stem(folder / "images", lambda path: path.suffix.lower() in EXTENSIONS)
    masks = _by_stem(folder / "masks", lambda path: path.suffix.lower() == ".png")
    without = sorted(images.keys() - masks.keys())
    if without or not images:
        what = f"{len(without)} images have no mask, the first is {images[without[0]]}" if without else "no images"
        raise ValueError(f"{folder}: {what}; masks are {folder / 'masks'}/STEM.png")
    stems = sorted(images)
    notes = [f"{folder}: {len(masks) - len(stems)} masks have no image"] * (len(masks) > len(stems))
    return Masks([images[stem] for stem in stems], [masks[stem] for stem in stems], classes, meaning, notes)


def _by_stem(folder: Path, wanted: Callable[[Path], bool]) -> dict[str, Path]:
    """Files by their path below the folder, without the ending."""
    found: dict[str, Path] = {}
    for path in sorted(filter(wanted, folder.rglob("*"))):
        stem = str(path.relative_to(folder).with_suffix(""))
        if stem in found:
            raise ValueError(f"{found[stem]} and {path} have one stem, so they would share a mask")
        found[stem] = path
    return found


def _cityscapes(data: Path, part: str) -> Masks:
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
    return Masks(images, masks, list(CITYSCAPES.values()), meaning)


def looked_over(masks: Masks) -> Masks:
    """The same, every mask read once: what is wrong is raised, and images without a labelled pixel are noted."""
    with ThreadPoolExecutor() as pool:
        looks = list(pool.map(lambda index: _look(masks, index), range(len(masks))))
    empty = [masks.masks[index].name for index, (_, labelled) in enumerate(looks) if not labelled]
    shown = f"{', '.join(empty[:3])}{', ...' if len(empty) > 3 else ''}"
    notes = [f"{len(empty)} of {len(masks)} masks have no labelled pixel: {shown}"] * bool(empty)
    return dataclasses.replace(masks, notes=[*masks.notes, *notes], sizes=frozenset(size for size, _ in looks))


def _look(masks: Masks, index: int) -> tuple[tuple[int, int], bool]:
    """Height and width of a mask, and whether any pixel of it has a class; its image should have the same."""
    mask = masks.read_mask(index)
    height, width = mask.shape[1:]
    if wrong := said_otherwise(masks.images[index], (height, width), f"its mask {masks.masks[index]} has"):
        raise ValueError(wrong)
    return (height, width), bool((mask != IGNORED).any())
