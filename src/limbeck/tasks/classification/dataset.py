"""Labelled and unlabelled images."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from limbeck.data.images import read_image, typical_size
from limbeck.data.problems import OnBadData

UNLABELLED = -1


@dataclass(frozen=True)
class Images:
    """Images with a label each; ``UNLABELLED`` where it has none."""

    items: Sequence[Path] | Tensor  # files, or (N, 3, H, W) uint8
    labels: Sequence[int]
    classes: list[str]
    notes: list[str] = field(default_factory=list)  # what was skipped, for the user to read
    origin: str = ""  # where they come from, likewise
    on_bad: OnBadData = "error"  # what becomes of those that cannot be read any more while a run goes on

    def __len__(self) -> int:
        return len(self.items)

    def facts(self) -> Iterator[Path | Tensor | str]:
        """What tells these images from others."""
        yield from [self.items] if isinstance(self.items, Tensor) else self.items
        yield str(list(self.labels))

    def read(self, index: int) -> Tensor:
        """One image (3, H, W) uint8; ``ValueError`` that names the file where it cannot be read."""
        item = self.items[index]
        return item if isinstance(item, Tensor) else read_image(item)

    def typical_size(self) -> tuple[int, int]:
        """The median height and width, of a sample of the files."""
        if isinstance(self.items, Tensor):
            return self.items.shape[2], self.items.shape[3]
        return typical_size(self.items)

    def take(self, indices: Sequence[int]) -> Images:
        items = self.items[list(indices)] if isinstance(self.items, Tensor) else [self.items[i] for i in indices]
        return dataclasses.replace(self, items=items, labels=[self.labels[i] for i in indices])


def split_off(images: Images, fraction: float, seed: int) -> tuple[Images, Images]:
    """Split a fraction of every class off for validation, by seed."""
    kept, held_out = [], []
    for members in shuffled_by_class(images, seed):
        count = max(1, round(fraction * len(members)))
        if count == len(members):
            raise ValueError(f"class {images.classes[images.labels[members[0]]]} has one image only; a split needs two")
        held_out += members[:count]
        kept += members[count:]
    val = images.take(sorted(held_out))
    return images.take(sorted(kept)), dataclasses.replace(
        val,
        notes=[],
        origin=f"held out of {images.origin.removeprefix('in ')} by the seed {seed}, {fraction:.0%} of each class",
    )


def first_of_each_class(images: Images, count: int, seed: int) -> list[int]:
    """Indices of ``count`` images chosen by seed, as evenly over the classes as they allow."""
    if count > len(images):
        raise ValueError(f"asked for {count} of {len(images)} images")
    ranked = [(rank, index) for members in shuffled_by_class(images, seed) for rank, index in enumerate(members)]
    return sorted(index for _, index in sorted(ranked)[:count])


def shuffled_by_class(images: Images, seed: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    members: dict[int, list[int]] = {}
    for index in torch.randperm(len(images), generator=generator).tolist():
        members.setdefault(images.labels[index], []).append(index)
    return [members[label] for label in sorted(members)]
