"""From an image and its objects to what a detector is trained and measured with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from limbeck.data.order import Key, seeded
from limbeck.data.reader import Reader
from limbeck.tasks.detection.dataset import Annotated, Objects

# image (3, H, W) uint8; of its n objects boxes (n, 4) float32 in its pixels, labels (n) int64 and, where wanted, masks
# (n, H, W) uint8; index; size: height and width of the image in its file.
Sample = dict[str, Any]
Batch = dict[str, list[Any]]


def collate(samples: Sequence[Sample]) -> Batch:
    """Samples of several sizes as lists."""
    return {name: [sample[name] for sample in samples] for name in samples[0]}


class ShortestSize(v2.RandomShortestSize):  # type: ignore[misc]
    """That of torchvision, which leaves an image a thousand times as long as it is wide no pixel across."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        params: dict[str, Any] = super().make_params(flat_inputs)
        return {**params, "size": tuple(max(1, side) for side in params["size"])}


def augmentation(
    short_side: Sequence[int], long_side: int, flip: float = 0.5, colour: float = 0.0
) -> Callable[[Sample], Sample]:
    """A random size, flip and colour, of image, boxes and masks together; objects below a pixel are dropped.

    Args:
        short_side: Pixels that the shorter side is brought to, one of these by chance.
        long_side: Pixels that the longer side has at most.
        flip: Probability of a flip.
        colour: Largest change of brightness, contrast and saturation, as a fraction; 0 for none.
    """
    steps = [
        ShortestSize(list(short_side), long_side),
        v2.RandomHorizontalFlip(flip),
        v2.ClampBoundingBoxes(),  # a box that rounding leaves beyond the edge would be dropped as well
        v2.SanitizeBoundingBoxes(),
    ]
    if colour:
        steps.append(v2.ColorJitter(colour, colour, colour))
    compose: Callable[[Sample], Sample] = v2.Compose(steps)
    return compose


@dataclass(frozen=True)
class Reading:
    """Reads samples, with masks where they are wanted."""

    objects: Objects
    reader: Reader[Tensor]
    transform: Callable[[Sample], Sample]
    masks: bool

    def __call__(self, index: int, *, crowds: bool) -> Sample:
        index, image = self.reader(index)
        wanted = self.objects.images[index]
        kept = torch.ones_like(wanted.crowd) if crowds else ~wanted.crowd
        sample: Sample = {
            "image": tv_tensors.Image(image),
            "boxes": tv_tensors.BoundingBoxes(wanted.boxes[kept], format="XYXY", canvas_size=wanted.size),
            "labels": wanted.labels[kept],
        }
        if self.masks:
            sample["masks"] = tv_tensors.Mask(drawn(wanted, kept))
        sample = self.transform(sample)
        sample = {name: value.as_subclass(Tensor) for name, value in sample.items()}
        return {**sample, "index": index, "size": wanted.size}


def drawn(image: Annotated, kept: Tensor) -> Tensor:
    """Masks (n, H, W) uint8 of the objects' outlines."""
    from faster_coco_eval.core import mask

    height, width = image.size
    masks = torch.zeros(int(kept.sum()), height, width, dtype=torch.uint8)
    outlines = [outline for outline, keep in zip(image.outlines, kept.tolist(), strict=True) if keep]
    for index, outline in enumerate(outlines):
        encoded = outline
        if isinstance(outline, list):
            encoded = mask.merge(mask.frPyObjects(outline, height, width))
        elif isinstance(outline["counts"], list):
            encoded = mask.frPyObjects(outline, height, width)
        masks[index] = torch.from_numpy(mask.decode(encoded))
    return masks


class TrainObjects(Dataset[Sample]):
    """Augmented samples without crowds; the augmentation depends on (seed, epoch, index) alone."""

    def __init__(self, objects: Objects, augment: Callable[[Sample], Sample], seed: int, *, masks: bool):
        self.objects, self.seed = objects, seed
        self.reader = Reader(objects)
        self.read = Reading(objects, self.reader, augment, masks)

    def __len__(self) -> int:
        return len(self.objects)

    def __getitem__(self, key: Key) -> Sample:
        epoch, index = key
        with seeded(self.seed, "augment", epoch, index):
            return self.read(index, crowds=False)


class ShortSide(nn.Module):
    """Bring the shorter side of an image, or of that of a sample, to so many pixels, the longer one to no more."""

    def __init__(self, short_side: int, long_side: int):
        super().__init__()
        self.long_side = long_side
        shorter = short_side if short_side < long_side else None  # else the longer one alone decides
        self.resize = v2.Resize(shorter, max_size=long_side, antialias=True)

    def forward(self, seen: Any) -> Any:
        height, width = (seen["image"] if isinstance(seen, dict) else seen).shape[-2:]
        if min(height, width) * self.long_side < max(height, width):  # torchvision would leave no pixel across
            return v2.Resize((1, self.long_side) if height < width else (self.long_side, 1), antialias=True)(seen)
        return self.resize(seen)


class ValObjects(Dataset[Sample]):
    """Images with their shorter side brought to ``short_side``, and every object."""

    def __init__(self, objects: Objects, short_side: int, long_side: int):
        self.objects = objects
        self.reader = Reader(objects)
        self.read = Reading(objects, self.reader, ShortSide(short_side, long_side), masks=False)

    def __len__(self) -> int:
        return len(self.objects)

    def __getitem__(self, index: int) -> Sample:
        return self.read(index, crowds=True)
