"""Letters on pictures."""

from __future__ import annotations

from functools import cache

from PIL import Image, ImageDraw, ImageFont

SIZE = 10  # pixels
FONTS = ("DejaVuSans.ttf", "Arial.ttf", "arial.ttf")  # of Linux, macOS and Windows


@cache
def font_file() -> str | None:
    """A font of the system with more letters than those of English, which are all that PIL brings; ``None``: no such.

    It has Latin, Greek and Cyrillic letters, but no Chinese or Japanese ones.
    """
    for name in FONTS:
        try:
            ImageFont.truetype(name, SIZE)
        except OSError:
            continue
        return name
    return None


def drawing_on(picture: Image.Image) -> ImageDraw.ImageDraw:
    """What draws on a picture, and writes with such a font."""
    draw = ImageDraw.Draw(picture)
    if (name := font_file()) is not None:
        draw.font = ImageFont.truetype(name, SIZE)
    return draw
