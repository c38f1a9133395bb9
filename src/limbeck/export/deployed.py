"""What is exported: a student with its normalisation, from images in [0, 1] to tensors by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.data.inputs import Inputs

Outputs = Mapping[str, Tensor]
Size = tuple[int, int]  # height and width in pixels
Run = Callable[[Tensor], Outputs]  # from images (B, 3, H, W) float32, RGB in [0, 1]


@dataclass(frozen=True)
class Deployed:
    """A student as it is deployed, whatever its task.

    Args:
        module: Takes images (B, 3, H, W) float32, RGB in [0, 1], and gives a tuple of tensors.
        outputs: Their names, in order.
        as_student: Makes of something that runs the exported file, and the size of the images that it takes, what is
            called as the student is, to be measured as it is.
        size: Height and width in pixels, where it takes one alone; ``None``: any.
        about: What a program that runs the file must know, beside classes and normalisation.
        unordered: The rows (B, Q, ...) of its outputs are as good in another order: those of queries that are chosen
            by scores, of which the last digit may decide.
    """

    module: nn.Module
    outputs: tuple[str, ...]
    as_student: Callable[[Run, Size | None], nn.Module]
    size: Size | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    unordered: bool = False

    def run(self, images: Tensor) -> dict[str, Tensor]:
        """The outputs by name, by torch itself."""
        with torch.no_grad():
            return dict(zip(self.outputs, self.module(images), strict=True))


class Normalise(nn.Module):
    """From RGB in [0, 1] to what a network takes: normalised, with zeros below and to the right up to its multiple."""

    mean: Tensor
    std: Tensor

    def __init__(self, inputs: Inputs):
        super().__init__()
        self.multiple = inputs.multiple
        self.register_buffer("mean", torch.tensor(inputs.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(inputs.std)[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        return self.padded((images - self.mean) / self.std)

    def undo(self, pixels: Tensor) -> Tensor:
        """RGB in [0, 1] again; what was padded with zeros becomes the mean."""
        return pixels * self.std + self.mean

    def padded(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        # Written as a product, a size is known to be a multiple while it is not known itself.
        rows, columns = (self.multiple * ((side + self.multiple - 1) // self.multiple) for side in (height, width))
        return F.pad(images, (0, columns - width, 0, rows - height)) if self.multiple > 1 else images


class Logits(nn.Module):
    """What is called as a student that gives logits is, and runs its exported file.

    Args:
        run: Runs the file.
        size: Of the images that the file takes; ``None``: any.
        inputs: What the student takes.
    """

    def __init__(self, run: Run, size: Size | None, inputs: Inputs):
        super().__init__()
        self.run, self.size, self.normalise = run, size, Normalise(inputs)
        self.device_of = nn.Parameter(torch.zeros(()))  # the device is that of a module's parameters

    def forward(self, pixels: Tensor) -> Tensor:
        images = self.normalise.undo(pixels)
        logits = self.run(images if self.size is None else at_size(images, self.size))["logits"]
        logits = logits[: len(pixels)].to(pixels.device)
        return at_size(logits, pixels.shape[-2:]) if logits.ndim == 4 else logits


def at_size(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Images, or maps, (B, C, H, W) of a size."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps, tuple(size), mode="bilinear", antialias=True)
