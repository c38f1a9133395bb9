"""What a trained model says of images, from files to answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from limbeck.data.images import pixels_in, read_image

Picture = Tensor | np.ndarray[Any, Any] | Image.Image | Path | str
SCORE = 0.3  # of the least certain object that is drawn


class Predictor(Protocol):
    """A model with its preprocessing.

    ``predict`` takes an RGB image (3, H, W) uint8, an array of numpy (H, W, 3) uint8 (RGB, where OpenCV reads BGR), a
    PIL image, or the path of a file, and gives tensors by name, in the image's own pixels, upright. Of classifiers:
    ``probabilities`` (K). Of segmenters: ``mask`` (H, W) int64. Of detectors: ``boxes`` (n, 4) as left, top, right,
    bottom, ``labels`` (n) from 0, ``scores`` (n), and ``masks`` (n, H, W) bool where it gives any.
    """

    classes: list[str]
    tells_by_colour: bool  # whether what it draws needs a legend

    def predict(self, image: Picture) -> dict[str, Tensor]: ...

    def describe(self, prediction: Mapping[str, Tensor]) -> dict[str, Any]:
        """A prediction as json takes it, with the names of the classes."""

    def annotations(self, prediction: Mapping[str, Tensor]) -> list[dict[str, Any]] | None:
        """Objects as COCO's json has them, but for those without extent; ``None`` where there are never any."""

    def draw(self, image: Tensor, prediction: Mapping[str, Tensor], score: float = SCORE) -> Tensor:
        """A prediction drawn on its image (3, H, W) uint8, but for objects of which a detector is less certain."""

    def write(self, name: str, prediction: Mapping[str, Tensor], folder: Path) -> None:
        """Write what json does not hold, such as a mask, as files of this name below a folder."""


def pixels_of(image: Picture) -> Tensor:
    """The pixels (3, H, W) uint8 of an image.

    Raises:
        ValueError: A file cannot be read, a tensor or array has another shape or type, or there is not one pixel.
        TypeError: It is nothing that holds an image.
    """
    pixels = _as_tensor(image)
    if not pixels.numel():  # of a box without extent, say
        raise ValueError(f"an image has at least one pixel, which {tuple(pixels.shape)} has not")
    return pixels


def _as_tensor(image: Picture) -> Tensor:
    if isinstance(image, str | Path):
        return read_image(Path(image))
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"an image is an array (H, W, 3) of uint8, not {image.shape} of {image.dtype}")
        image = Image.fromarray(image)
    if isinstance(image, Image.Image):
        return pixels_in(image)
    if not isinstance(image, Tensor):
        raise TypeError(f"an image is a path, a tensor, an array of numpy or PIL's, not {type(image).__name__}")
    if image.ndim != 3 or len(image) != 3 or image.dtype != torch.uint8:
        raise ValueError(f"an image is a tensor (3, H, W) of uint8, not {tuple(image.shape)} of {image.dtype}")
    return image
