"""Image files as pixels: 8 bits a channel, whatever the file has, and upright."""

from __future__ import annotations

import statistics
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from limbeck.data.parts import files_below

EXTENSIONS = {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm"}
UNREADABLE = (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, struct.error)  # of damaged files
TURNS = {  # by EXIF orientation: what makes the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SAMPLED = 200  # images whose sizes stand for those of all


def read_image(path: Path) -> Tensor:
    """One image (3, H, W) uint8, as ``pixels_in`` reads it.

    Raises:
        ValueError: The file cannot be read as an image.
    """
    with opened(path) as image:
        return pixels_in(image)


def pixels_in(image: Image.Image) -> Tensor:
    """The pixels (3, H, W) uint8 of an image, turned as its EXIF orientation says.

    Integers of 16 bits become their upper 8; floating-point pixels are taken to lie from 0 to 1 if none is above 1,
    and else from 0 to 255. What would come out black, as 8 bits in a file of 16, is refused. An alpha channel is left
    out.

    Raises:
        ValueError: The pixels lie in another range.
    """
    turn = TURNS.get(orientation_of(image))
    rgb = (_in_8_bits(image) if image.mode[0] in "IF" else image).convert("RGB")
    return pil_to_tensor(rgb if turn is None else rgb.transpose(turn))


def pil_to_tensor(image: Image.Image) -> Tensor:
    """The pixels (C, H, W) of an image, by torchvision: imported here, since that takes as long as importing torch."""
    from torchvision.transforms.v2 import functional

    pixels: Tensor = functional.pil_to_tensor(image)
    return pixels


def to_pil_image(pixels: Tensor) -> Image.Image:
    """An image from its pixels (3, H, W) uint8, likewise."""
    from torchvision.transforms.v2 import functional

    image: Image.Image = functional.to_pil_image(pixels)
    return image


def size_of(path: Path) -> tuple[int, int]:
    """Height and width in pixels of the upright image, of which only the head of the file tells."""
    with opened(path) as image:
        return upright_size(image)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Height and width in pixels, once the image is turned as its EXIF orientation says."""
    return (image.width, image.height) if orientation_of(image) >= 5 else (image.height, image.width)


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where the head of the file has none, or PIL turns the image itself."""
    if image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info):
        return 1
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except UNREADABLE:  # a damaged block of EXIF says nothing of the pixels
        return 1
    return orientation if orientation in TURNS else 1


def said_otherwise(path: Path, size: tuple[int, int], where: str) -> str:
    """What is wrong where an annotation has another height and width than its image; empty where nothing is."""
    height, width = size_of(path)
    if (height, width) == size:
        return ""
    what = f"{path} is {width}x{height} pixels, {where} {size[1]}x{size[0]}"
    with opened(path) as image:
        stored = orientation_of(image) >= 5 and size == (image.height, image.width)
    turned = "; it is turned as its EXIF orientation says: if it was annotated unturned, take out that tag"
    return what + turned * stored


def no_image_in(folder: Path) -> ValueError:
    """To be raised where no file below a folder has the ending of an image: which there are, and which are read."""
    there = sorted({path.suffix for path in files_below(folder) if path.suffix})
    what = f" (its files end in {', '.join(there[:5])})" if there else ""
    return ValueError(f"{folder} holds no image{what}; the endings read are {' '.join(sorted(EXTENSIONS))}")


def typical_size(paths: Sequence[Path]) -> tuple[int, int]:
    """The median height and the median width of a sample of images, so that no single one decides."""
    chosen = [paths[index * len(paths) // SAMPLED] for index in range(SAMPLED)] if len(paths) > SAMPLED else paths
    heights, widths = zip(*map(size_of, chosen), strict=True)
    return statistics.median_low(heights), statistics.median_low(widths)


@contextmanager
def opened(path: Path, kind: str = "an image") -> Iterator[Image.Image]:
    """A file as PIL opens it; whatever goes wrong then or with its pixels is a ``ValueError`` that names the file."""
    try:
        with Image.open(path) as image:
            yield image
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path} has more pixels than PIL opens ({error}); cut it into smaller images") from None
    except UNREADABLE as error:
        raise ValueError(f"{path} cannot be read as {kind} ({error}); repair or remove it") from None


def _in_8_bits(image: Image.Image) -> Image.Image:
    """Grey pixels of 16 or 32 bits, which PIL would cut off at 255."""
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    if image.mode == "F":
        limit, scale, black = 255, 255.0 if high <= 1 else 1.0, 1 < high < 2
    else:
        limit, scale, black = 65535, 1 / 256, 0 < high < 256
    if not 0 <= low <= high <= limit:  # nor is it so for NaN
        raise ValueError(f"its {image.mode} pixels lie from {low:g} to {high:g}, which should be from 0 to {limit}")
    if black:
        raise ValueError(
            f"its {image.mode} pixels lie from {low:g} to {high:g}, which is black where {limit} is white; save it "
            "with 8 bits a channel"
        )
    scaled = np.floor(values * scale) if scale < 1 else np.rint(values * scale)
    return Image.fromarray(scaled.astype(np.uint8))
