"""Images with objects: boxes, and outlines where they are wanted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limbeck.data.images import read_image
from limbeck.data.problems import OnBadData as OnBadData


@dataclass(frozen=True)
class Annotated:
    """An image and its objects, n of them."""

    id: int  # as the json has it
    path: Path
    size: tuple[int, int]  # height and width in pixels
    boxes: Tensor  # (n, 4) float32: left, top, right, bottom, in pixels
    labels: Tensor  # (n) int64: index of the class
    crowd: Tensor  # (n) bool: a group that is not counted one by one
    areas: Tensor  # (n) float32: of the object, in square pixels
    outlines: list[Any] = field(default_factory=list)  # (n) polygons or run-length encodings, as the json has them

    # Tensors would take a file descriptor each on their way to a loader's worker that does not fork.
    def __getstate__(self) -> dict[str, Any]:
        return {name: each.numpy() if isinstance(each, Tensor) else each for name, each in vars(self).items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(
            {name: torch.from_numpy(each) if isinstance(each, np.ndarray) else each for name, each in state.items()}
        )


@dataclass(frozen=True)
class Objects:
    """Annotated images."""

    images: Sequence[Annotated]
    classes: list[str]
    ids: list[int]  # of the categories, as the json has them, in the order of the classes
    notes: list[str] = field(default_factory=list)  # what the user should read
    origin: str = ""  # where they come from, likewise
    on_bad: OnBadData = "error"  # what becomes of images that cannot be read any more while a run goes on

    def __len__(self) -> int:
        return len(self.images)

    def facts(self) -> Iterator[Path | Tensor | str]:
        """What tells these images and objects from others; outlines by their areas."""
        for image in self.images:
            yield from (image.path, image.boxes, image.labels, image.crowd, image.areas)

    def read(self, index: int) -> Tensor:
        """One image (3, H, W) uint8; ``ValueError`` that names the file where it is not as annotated."""
        wanted = self.images[index]
        image = read_image(wanted.path)
        if tuple(image.shape[1:]) != wanted.size:
            height, width = wanted.size
            raise ValueError(
                f"{wanted.path} is {image.shape[2]}x{image.shape[1]} pixels, its annotation says {width}x{height}"
            )
        return image

    def take(self, indices: Sequence[int]) -> Objects:
        return replace(self, images=[self.images[index] for index in indices])


def check_some(objects: Objects) -> Objects:
    """The images, of which one has an object: without, there is no average precision."""
    if all(image.crowd.all() for image in objects.images):  # also where there is none
        raise ValueError(
            f"none of the {len(objects)} images {objects.origin} has an object, so there is nothing to learn or to "
            "measure; if few have, choose others by --data-seed, --images or --val-data"
        )
    return objects


def split_off(objects: Objects, fraction: float, seed: int) -> tuple[Objects, Objects]:
    """Split a fraction off for validation, by seed."""
    order = torch.randperm(len(objects), generator=torch.Generator().manual_seed(seed)).tolist()
    count = max(1, round(fraction * len(objects)))
    if count == len(objects):
        raise ValueError(f"{objects.images[0].path} is the only image; a split into training and validation needs two")
    train, val = objects.take(sorted(order[count:])), objects.take(sorted(order[:count]))
    origin = f"held out of {objects.origin.removeprefix('of ')} by the seed {seed}, {fraction:.0%}"
    return train, replace(val, notes=[], origin=origin)
