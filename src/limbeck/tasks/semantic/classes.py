"""What the values or colours in a mask's file mean."""

from __future__ import annotations

import csv
import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from limbeck.data.text import read_text

IGNORED = 255  # in a mask: of no class, for loss and metrics alike
UNKNOWN = -1
VOID = {"void", "ignore", "ignored", "unlabelled", "unlabeled"}  # names of colours that are no class
FILES = ("classes.txt", "class_dict.csv", "labelmap.txt")
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Labels:
    """The classes, and the class of each value of an index mask, or of each colour of a palette."""

    classes: list[str]
    meaning: Tensor  # (256) int16, or of each colour (C): the class, or IGNORED, or UNKNOWN
    palette: Tensor | None = None  # (C) int64: the colours as numbers, ascending

    def of_values(self, values: Tensor) -> Tensor:
        """Classes (1, H, W) of the values (1, H, W) of an index mask, or of colours (3, H, W)."""
        if self.palette is None:
            return self.meaning[values.long()]
        colours = as_number(values.long())
        places = torch.searchsorted(self.palette, colours).clamp(max=len(self.palette) - 1)
        return torch.where(self.palette[places] == colours, self.meaning[places], UNKNOWN)[None]


def read_labels(folder: Path, ignore_index: int | None) -> Labels:
    """The classes that a file in a folder names: ``classes.txt``, ``class_dict.csv`` or CVAT's ``labelmap.txt``.

    Args:
        folder: Of the data.
        ignore_index: A value of index masks, beside 255, for pixels of no class.

    Raises:
        ValueError: There is no such file, or one that does not say what each value or colour means.
    """
    if ignore_index is not None and not 0 <= ignore_index <= IGNORED:
        raise ValueError(f"ignore_index is {ignore_index}; masks hold values from 0 to 255")
    path = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if path is None:
        raise ValueError(
            f"no {folder / FILES[0]}; it should name a class a line, in the order of their values in the masks"
        )
    lines = [line.split("#")[0].strip() for line in read_text(path).splitlines()]
    colours = _colours(path, [line for line in lines if line])
    if colours and ignore_index is not None:
        raise ValueError(f"{path} gives colours, of which --ignore-index is none; call that of no class void")
    labels = of_colours(colours) if colours else of_values(path, lines, ignore_index)
    if len(labels.classes) < 2:
        raise ValueError(f"{path} names {len(labels.classes)} classes; there should be two or more")
    return labels


def of_values(path: Path, lines: list[str], ignore_index: int | None) -> Labels:
    """``NAME`` or ``VALUE NAME`` a line."""
    named: dict[int, str] = {}
    for line in filter(None, lines):
        value, _, name = line.partition(" ")
        number, name = (int(value), name.strip()) if value.isdigit() and name else (len(named), line)
        if number in named or number >= IGNORED:
            raise ValueError(
                f"{path}: the value {number} of {name!r} is taken, or above 254; where masks are black and white, give "
                "colours, a line each: 0 0 0 NAME and 255 255 255 NAME"
            )
        named[number] = name
    if ignore_index in named:
        raise ValueError(f"{path} names the class {named[ignore_index]!r} of the value that --ignore-index leaves out")
    return Labels(list(named.values()), meaning_of(named, ignore_index))


def meaning_of(named: dict[int, str], ignore_index: int | None) -> Tensor:
    """The class of each value (256)."""
    meaning = torch.full((256,), UNKNOWN, dtype=torch.int16)
    meaning[list(named)] = torch.arange(len(named), dtype=torch.int16)
    meaning[[IGNORED, *([] if ignore_index is None else [ignore_index])]] = IGNORED
    return meaning


def of_colours(colours: dict[Colour, str]) -> Labels:
    """Several colours may be of one class; those that are called void or alike are of none."""
    classes = list(dict.fromkeys(name for name in colours.values() if name.lower() not in VOID))
    codes = as_number(torch.tensor(list(colours)).T)
    order = codes.argsort()
    meaning = [IGNORED if name.lower() in VOID else classes.index(name) for name in colours.values()]
    return Labels(classes, torch.tensor(meaning, dtype=torch.int16)[order], codes[order])


def as_number(colours: Tensor) -> Tensor:
    """Colours (3, ...) as one integer each."""
    number: Tensor = (colours[0] * 256 + colours[1]) * 256 + colours[2]
    return number


def with_classes(labels: Labels, classes: list[str] | None, folder: Path) -> Labels:
    """The same, where the classes are these by name; in their order."""
    if classes is None or labels.classes == classes:
        return labels
    if differ := sorted(set(classes) ^ set(labels.classes)):
        raise ValueError(f"{folder} has not the classes of the training images; only one has {differ[:5]}")
    places = torch.tensor([classes.index(name) for name in labels.classes], dtype=torch.int16)
    is_class = (labels.meaning >= 0) & (labels.meaning < len(classes))
    meaning = torch.where(is_class, places[labels.meaning.clamp(0, len(classes) - 1).long()], labels.meaning)
    return dataclasses.replace(labels, classes=classes, meaning=meaning)


def _colours(path: Path, lines: list[str]) -> dict[Colour, str]:
    """The name of each colour, where a file has colours: R G B NAME, NAME,R,G,B or NAME:R,G,B:... a line."""
    if path.suffix == ".csv":
        rows = [(cells[0], cells[1:4]) for cells in csv.reader(lines[1:])]
    elif path.name == "labelmap.txt":
        rows = [(parts[0], parts[1].split(",")) for line in lines if len(parts := line.split(":")) > 1]
    else:
        split = [line.split(maxsplit=3) for line in lines]
        if not all(len(words) == 4 and all(word.isdigit() for word in words[:3]) for words in split):
            return {}
        rows = [(words[3], words[:3]) for words in split]
    found: dict[Colour, str] = {}
    for name, cells in rows:
        values = [int(cell) for cell in cells if cell.strip().isdigit() and int(cell) <= 255]
        if len(values) != 3 or len(cells) != 3:
            raise ValueError(f"{path}: {name!r} has the colour {','.join(cells)!r}, not red, green and blue, 0 to 255")
        red, green, blue = values
        if (red, green, blue) in found:
            raise ValueError(f"{path}: {name!r} has the colour of {found[red, green, blue]!r}")
        found[red, green, blue] = name.strip()
    if not found:
        raise ValueError(f"{path} names no colours")
    return found
