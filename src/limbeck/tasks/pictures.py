"""Pictures side by side, of what is there and of what models predict."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from PIL import Image, ImageOps
from torch import Tensor

from limbeck.data.images import to_pil_image
from limbeck.tasks.lettering import drawing_on, tell_missing

Panels = Mapping[str, Tensor]  # (3, H, W) uint8 by title
TITLE = 16  # pixels above each panel
CELL = 384  # pixels between panels on the sheet of a batch, across and down
PANEL = CELL - 4  # pixels that the longer side of a panel has there
GOLDEN = 0.618034  # turns of the hue from class to class, so that neighbours differ


def write_pictures(sheets: Iterable[tuple[str, Panels]], classes: list[str], folder: Path) -> None:
    """Draw images side by side: an image, the truth, and what each model predicts.

    Args:
        sheets: For each image its name, and panels (3, H, W) uint8 by title.
        classes: Their names.
        folder: Gets a PNG for each image, by its number and name, and ``classes.png``, which tells the colours.
    """
    folder.mkdir(parents=True, exist_ok=True)
    legend(classes).save(folder / "classes.png")
    for index, (name, panels) in enumerate(sheets):
        side_by_side(panels).save(folder / f"{index:04d}-{name}.png")


def write_batch(panels: Iterable[tuple[str, Tensor]], classes: list[str], file: Path) -> None:
    """Draw the images of a batch on one sheet, with the truth drawn in, and the colours of the classes at its right.

    Args:
        panels: (3, H, W) uint8, each with its title.
        classes: Their names.
        file: A PNG, whose folder is made where it is not there.
    """
    shown = list(panels)
    across = math.ceil(math.sqrt(len(shown)))
    down = math.ceil(len(shown) / across)
    colour_key = legend(classes)
    size = (across * CELL + colour_key.width, max(down * (CELL + TITLE), colour_key.height))
    sheet = Image.new("RGB", size, "white")
    draw = drawing_on(sheet, "".join(title for title, _ in shown))
    for index, (title, panel) in enumerate(shown):
        left, top = index % across * CELL, index // across * (CELL + TITLE)
        picture = ImageOps.contain(to_pil_image(panel), (PANEL, PANEL))
        sheet.paste(picture, (left, top + TITLE))
        draw.text((left + 4, top + 2), title[: int((CELL - 8) / draw.textlength("n"))], fill="black")
    sheet.paste(colour_key, (across * CELL, 0))
    file.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(file)


def colours(classes: int) -> list[tuple[int, int, int]]:
    """A colour for each class: the same for the same number, whatever the image."""
    found = []
    for index in range(classes):
        red, green, blue = colorsys.hsv_to_rgb(index * GOLDEN % 1, 0.9 if index % 2 else 0.6, 1.0)
        found.append((round(255 * red), round(255 * green), round(255 * blue)))
    return found


def side_by_side(panels: Panels) -> Image.Image:
    """Panels (3, H, W) in a row, each below its title."""
    from torchvision.transforms.v2.functional import resize  # takes as long to import as torch

    height, width = next(iter(panels.values())).shape[1:]
    sheet = Image.new("RGB", (width * len(panels), height + TITLE), "white")
    draw = drawing_on(sheet, "".join(panels))
    for index, (title, panel) in enumerate(panels.items()):
        shown = panel if panel.shape[1:] == (height, width) else resize(panel, [height, width])
        sheet.paste(to_pil_image(shown), (index * width, TITLE))
        letters = max(1, int(width / draw.textlength("n")) - 1)
        draw.text((index * width + 4, 2), title[-letters:], fill="black")  # of a path, the end tells most
    return sheet


def legend(classes: list[str]) -> Image.Image:
    """The colours of classes, each beside its name; where a font lacks letters of these, one reads so."""
    tell_missing(classes)
    sheet = Image.new("RGB", (240, TITLE * len(classes)), "white")
    draw = drawing_on(sheet, "".join(classes))
    for index, (name, colour) in enumerate(zip(classes, colours(len(classes)), strict=True)):
        draw.rectangle((2, index * TITLE + 2, 22, (index + 1) * TITLE - 2), fill=colour)
        draw.text((28, index * TITLE + 2), name, fill="black")
    return sheet
