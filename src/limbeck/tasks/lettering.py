"""Letters on pictures."""

from __future__ import annotations

import sys
from collections.abc import Collection
from functools import cache

from PIL import Image, ImageDraw, ImageFont

SIZE = 10  # pixels
LETTERS = 0.018  # of the mean side of a photo
FONTS = (  # of Linux, macOS and Windows: with Latin, Greek and Cyrillic letters, then with those of East Asia, too
    *("DejaVuSans.ttf", "Arial.ttf", "arial.ttf"),
    *("NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "DroidSansFallbackFull.ttf", "wqy-zenhei.ttc"),
    *("wqy-microhei.ttc", "Arial Unicode.ttf", "Hiragino Sans GB.ttc", "PingFang.ttc", "AppleGothic.ttf"),
    *("msyh.ttc", "simsun.ttc", "YuGothM.ttc", "msgothic.ttc", "malgun.ttf"),
)
NO_LETTER = "\uffff"  # drawn as whatever a font draws for a letter that it lacks


def font_file(text: str = "") -> str | None:
    """The first font of the system that lacks the fewest letters of a text; ``None``: the system has none of ``FONTS``.

    PIL brings one of its own, which has the letters of English alone.
    """
    return _font_file(frozenset(text))


@cache
def _font_file(letters: Collection[str]) -> str | None:
    best, fewest = None, len(letters) + 1
    for name in FONTS:
        try:
            font = ImageFont.truetype(name, SIZE)
        except OSError:
            continue
        if (count := len(_missing_of(font, letters))) < fewest:
            best, fewest = name, count
        if not count:
            break
    return best


def missing_letters(text: str) -> str:
    """The letters of a text, sorted, that the font for it lacks, so that boxes stand for them on pictures."""
    letters = set(text) - set(" \n\t")
    name = font_file(text)
    font = ImageFont.load_default(SIZE) if name is None else ImageFont.truetype(name, SIZE)
    return "".join(sorted(_missing_of(font, letters)))


def tell_missing(names: Collection[str]) -> None:
    """Say, once for all names, that some of them have letters that no font of the system has."""
    if missing := missing_letters("".join(names)):
        count = sum(any(letter in name for letter in missing) for name in names)
        note = f"{count} of {len(names)} names of classes have letters for which boxes are drawn ({missing[:9]})"
        _tell(f"{note}: no font that was found has them; install one that has, such as Noto Sans CJK")


@cache
def _tell(note: str) -> None:
    print(note, file=sys.stderr)


def _missing_of(font: ImageFont.FreeTypeFont | ImageFont.ImageFont, letters: Collection[str]) -> set[str]:
    box = bytes(font.getmask(NO_LETTER))
    return {letter for letter in letters if not letter.isspace() and bytes(font.getmask(letter)) == box}


def drawing_on(picture: Image.Image, text: str = "", size: int = SIZE) -> ImageDraw.ImageDraw:
    """What draws on a picture, and writes with the font for a text, in letters of so many pixels."""
    draw = ImageDraw.Draw(picture)
    name = font_file(text)
    draw.font = ImageFont.load_default(size) if name is None else ImageFont.truetype(name, size)
    return draw


def size_on(height: int, width: int) -> int:
    """Pixels of the letters on a photo, which is looked at as a whole: of twelve megapixels, ten could not be read."""
    return max(SIZE, round(LETTERS * (height + width) / 2))
