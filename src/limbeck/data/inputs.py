"""What images a model takes, and how they are made so on its device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ANY_SIZE = 256  # pixels, height and width, of the image with which what takes images of any size is tried


@dataclass(frozen=True)
class Inputs:
    """What images a model takes: RGB in [0, 1] less the mean, over the standard deviation."""

    size: int | None = None  # pixels, height and width; None: any
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    multiple: int = 1  # of which height and width have to be multiples, in pixels

    @property
    def square(self) -> int:
        """Height and width in pixels, of what does not take any."""
        assert self.size is not None
        return self.size

    @property
    def example(self) -> Tensor:
        """An image (1, 3, H, W) of noise, always the same: zeros may give back zeros at every layer."""
        size = self.size or ANY_SIZE
        return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))


def normalised(images: Tensor, inputs: Inputs) -> Tensor:
    """Images (B, 3, H, W) uint8 less the mean, over the standard deviation, in float32; of the size that they have."""
    mean, std = (torch.tensor(values, device=images.device).view(3, 1, 1) * 255 for values in (inputs.mean, inputs.std))
    return (images.float() - mean) / std


class Preprocess(nn.Module):
    """Images (B, 3, S, S) uint8 as a model takes them: its size, its mean and standard deviation."""

    mean: Tensor
    std: Tensor

    def __init__(self, inputs: Inputs):
        super().__init__()
        self.size = inputs.square
        self.register_buffer("mean", torch.tensor(inputs.mean).view(3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(inputs.std).view(3, 1, 1) * 255)

    def forward(self, images: Tensor) -> Tensor:  # (B, 3, S, S) uint8 -> (B, 3, size, size) float32
        self.to(images.device)  # no copy once it is there
        pixels = images.float()
        if pixels.shape[-1] != self.size:
            pixels = F.interpolate(pixels, (self.size, self.size), mode="bilinear", antialias=True)
        return (pixels - self.mean) / self.std
