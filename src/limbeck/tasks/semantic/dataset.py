"""Images with a mask of classes each."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from glob import escape
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from limbeck.data.images import opened, pil_to_tensor, read_image, said_otherwise
from limbeck.data.index import sizes_of
from limbeck.data.problems import OnBadData, Problem, absent_of, first_few, left_out
from limbeck.data.progress import track
from limbeck.tasks.semantic.classes import FILES, IGNORED, UNKNOWN, Labels


@dataclass(frozen=True)
class Masks:
    """Images and their masks, and what the values in a mask's file mean."""

    images: Sequence[Path]
    masks: Sequence[Path]
    labels: Labels
    notes: list[str] = field(default_factory=list)  # what the user should read
    sizes: frozenset[tuple[int, int]] = frozenset()  # heights and widths that there are
    origin: str = ""  # where they come from, for the user to read
    on_bad: OnBadData = "error"  # what becomes of those that cannot be read any more while a run goes on

    def __len__(self) -> int:
        return len(self.images)

    @property
    def classes(self) -> list[str]:
        return self.labels.classes

    def facts(self) -> Iterator[Path | Tensor | str]:
        """What tells these images and masks from others."""
        yield from self.images
        yield from self.masks
        yield self.labels.meaning

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        """Image (3, H, W) and mask (1, H, W), uint8; ``ValueError`` that names the file where something is wrong."""
        return read_image(self.images[index]), self.read_mask(index)

    def read_mask(self, index: int) -> Tensor:
        """Classes (1, H, W), uint8."""
        path, labels = self.masks[index], self.labels
        values = read_values(path) if labels.palette is None else read_image(path)
        classes = labels.of_values(values)
        if (unknown := classes == UNKNOWN).any():
            undefined = torch.unique(values.movedim(0, -1)[unknown[0]], dim=0)[:10].squeeze(-1).tolist()
            what, remedy = ("values", "pass --ignore-index") if labels.palette is None else ("colours", "call it void")
            raise ValueError(
                f"{path} holds the {what} {undefined}, which stand for none of the {len(labels.classes)} classes; if "
                f"one of them means that a pixel has no class, {remedy}"
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
            return pil_to_tensor(mask)
    raise ValueError(
        f"{path} is no index mask but of mode {mask.mode}: a mask holds one class index, 0 to 254, for each pixel, or "
        "colours that class_dict.csv, labelmap.txt or classes.txt name"
    )


def split_off(masks: Masks, fraction: float, seed: int) -> tuple[Masks, Masks]:
    """Split a fraction off for validation, by seed."""
    order = torch.randperm(len(masks), generator=torch.Generator().manual_seed(seed)).tolist()
    count = max(1, round(fraction * len(masks)))
    if count == len(masks):
        raise ValueError(f"{masks.masks[0].parent} has one image only; a split into training and validation needs two")
    train, val = masks.take(sorted(order[count:])), masks.take(sorted(order[:count]))
    origin = f"held out of {masks.origin.removeprefix('of ')} by the seed {seed}, {fraction:.0%}"
    return train, dataclasses.replace(val, notes=[], origin=origin)


def without_mask(image: Path, mask: Path) -> Problem:
    others = sorted(mask.parent.glob(f"{escape(mask.stem)}.*"))
    hint = f", and {others[0].name} is of no format that keeps values as they are" if others else ""
    return Problem("images without a mask", f"{image} has no mask; it should be {mask}{hint}")


def checked(masks: Masks, folder: Path) -> Masks:
    """Those that can be used: every mask is read, every image decoded unless it is remembered.

    Raises:
        ValueError: Some cannot, and are not to be left out.
    """
    sizes = sizes_of(masks.images, folder)
    with ThreadPoolExecutor() as pool:
        found = pool.map(partial(_check_mask, masks), range(len(masks)), sizes)
        results = list(track(found, f"checking masks of {folder}", len(masks)))
    problems = [result for result in results if isinstance(result, Problem)]
    kept = [index for index, result in enumerate(results) if not isinstance(result, Problem)]
    notes = left_out(problems, masks.on_bad, of=folder, some_left=bool(kept))
    usable = [result for result in results if not isinstance(result, Problem)]
    empty = [masks.masks[index].name for index, (_, there) in zip(kept, usable, strict=True) if not there]
    notes += [f"{len(empty)} of {len(kept)} masks have no labelled pixel: {first_few(empty)}"] * bool(empty)
    everywhere = set().union(*(there for _, there in usable))
    absent = absent_of(masks.classes, everywhere)
    notes += [f"{folder}: no mask has a pixel of {absent}"] * bool(absent and everywhere)
    return dataclasses.replace(
        masks.take(kept), notes=[*masks.notes, *notes], sizes=frozenset(size for size, _ in usable)
    )


def check_several(masks: Masks) -> Masks:
    """The masks, of which the pixels are of several classes: of one alone there is nothing to learn.

    Masks of black and white are so, where white was meant as a class: 255 is none.
    """
    there: set[int] = set()
    for index in range(len(masks)):  # mostly the first is enough
        there |= set(torch.unique(masks.read_mask(index)).tolist())
        if len(there - {IGNORED}) > 1:
            return masks
    only, *_ = there - {IGNORED}
    name, *others = sorted(masks.classes, key=lambda name: name != masks.classes[only])
    white = f"0 0 0 {name} and 255 255 255 {others[0]}"
    meant = f"; 255 is of no class: if white is one, give colours in {FILES[0]}, a line each: {white}"
    raise ValueError(
        f"all labelled pixels of the {len(masks)} masks {masks.origin} are of one class, {name}, so there is nothing "
        f"to learn{meant * (IGNORED in there)}"
    )


def check_labelled(masks: Masks) -> Masks:
    """The masks, of which one has a pixel of a class: without, every metric would be nan."""
    if not any((masks.read_mask(index) != IGNORED).any() for index in range(len(masks))):  # mostly the first has
        raise ValueError(
            f"none of the {len(masks)} masks {masks.origin} has a pixel of a class, so there is nothing to learn or to "
            "measure; are the classes and --ignore-index those of these masks? If few masks have labels, choose others "
            "by --data-seed, --images or --val-data"
        )
    return masks


def _check_mask(masks: Masks, index: int, size: tuple[int, int] | str) -> tuple[tuple[int, int], set[int]] | Problem:
    """Height and width of a mask, and the classes that its pixels have."""
    if isinstance(size, str):
        return Problem("unreadable images", size)
    try:
        mask = masks.read_mask(index)
    except ValueError as error:
        return Problem("unusable masks", str(error))
    height, width = mask.shape[1:]
    if size != (height, width):
        where = f"its mask {masks.masks[index]} has"
        return Problem("masks of another size", said_otherwise(masks.images[index], (height, width), where))
    counts = torch.bincount(mask.flatten(), minlength=IGNORED + 1)[:IGNORED]
    return (height, width), set(counts.nonzero().flatten().tolist())
