"""Labelled images in a list: a file with an image and a label a line."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from limbeck.data.images import EXTENSIONS
from limbeck.data.parts import KNOWN, NAMES, Part, Source, part_named, refuse_unknown, resembles_part
from limbeck.data.problems import OnBadData, Problem, left_out
from limbeck.data.text import read_text
from limbeck.tasks.classification.dataset import Images
from limbeck.tasks.classification.folders import sound

ENDINGS = {".csv": ",", ".tsv": "\t"}
OTHERS = (";", "\t", ",")  # by which lists are separated, too: spreadsheets choose by the country
Rows = list[tuple[int, list[str]]]  # each with the number of its line
HOT, COLD = {"1", "1.0"}, {"0", "0.0"}
IMAGE = (
    *("path", "image", "image_path", "img_path", "filepath", "filepaths", "file", "filename", "file_name", "img"),
    *("image_name", "img_name", "image_id", "id"),
)
LABEL = ("label", "class", "category", "target", "labels", "class_name")
HEADING = "; if that is a heading, call the columns image and label"
PART = ("split", "part", "set", "subset", "partition", "data set", "data_set", "dataset")  # of a line, in some lists


def find_lists(place: Path, on_bad: OnBadData) -> dict[Part, Source[Images]]:
    """The parts that lists in a folder are called for, or one list as the training images."""
    if place.suffix.lower() in ENDINGS:
        return _divided(place, on_bad)
    files = [path for path in sorted(place.iterdir()) if path.suffix.lower() in ENDINGS]
    lists = {part: path for path in files if (part := part_named(path.stem)) is not None}
    if "train" in lists:
        alike = [path for path in files if resembles_part(path.stem) and "train" not in path.stem.lower()]
        refuse_unknown(lists, [path for path in alike if path not in lists.values()])
    if list(lists) == ["train"]:
        return _divided(lists["train"], on_bad)
    return {part: partial(read_list, path, on_bad=on_bad) for part, path in lists.items()}


def _divided(file: Path, on_bad: OnBadData) -> dict[Part, Source[Images]]:
    """The parts that a column of a list names, or the whole list as the training images."""
    rows = _rows(file)
    column = _column(rows, PART)
    cells = {number: row[column : column + 1] for number, row in rows[1:]} if column is not None else {}
    values = {number: "".join(cell).strip() for number, cell in cells.items()}
    named = {number: part_named(value) for number, value in values.items()}
    if not any(named.values()):  # nor is it such a column where it has other words
        return {"train": partial(read_list, file, on_bad=on_bad)}
    if unknown := next((number for number, part in named.items() if part is None), None):
        raise ValueError(
            f"{file}, line {unknown}: {values[unknown]!r} is no part that is known, as others in this column are; "
            f"known names are {KNOWN.replace('/', '')}"
        )
    return {part: partial(read_list, file, on_bad=on_bad, part=part) for part in NAMES if part in named.values()}


def read_list(
    file: Path, classes: list[str] | None = None, *, on_bad: OnBadData = "error", part: Part | None = None
) -> Images:
    """Images and labels of a list; their columns are named in its first line, or are the first two.

    A column for each class may stand instead of the labels: 1 where the image is of the class, 0 in the others.

    Args:
        file: Its images are found from its folder on, or in the folder that is called as the list, or in ``images``.
        classes: Those that there may be; by default all that the list has, in the order of their names, or of their
            values where all are numbers.
        on_bad: What becomes of images that are missing or cannot be decoded.
        part: Only the lines that a column says are of this part.

    Raises:
        ValueError: A line has no label, one that is none of the classes or not that of another line, or, unless these
            are to be left out, an image that is not there or cannot be decoded.
    """
    pairs = _pairs(file, part)
    named = classes or _in_order({name for _, name, _ in pairs})
    if unknown := [(name, number) for _, name, number in pairs if name not in named]:
        name, number = unknown[0]
        raise ValueError(f"{file}, line {number}: no training image is of the class {name!r}")
    place = {name: index for index, name in enumerate(named)}
    found: dict[Path, tuple[str, int]] = {}  # label, and the line that says so
    missing = []
    for name, label_name, number in pairs:
        if (path := _image(file, name)) is None:
            where = f"{file.parent}, {file.stem}/ or images/ in it" + (number == 1) * HEADING
            missing.append(Problem("missing images", f"line {number}: there is no image {name} in {where}"))
            continue
        before, line = found.setdefault(path, (label_name, number))
        if before != label_name:
            raise ValueError(f"{file}: line {line} says that {name} is {before}, line {number} {label_name}")
    notes = left_out(missing, on_bad, of=file, some_left=bool(found))
    if again := len(pairs) - len(missing) - len(found):
        notes.append(f"{file}: {again} lines name an image that another names with the same label, and count once")
    labels = [place[name] for name, _ in found.values()]
    origin = f"in the list {file}" + (f", of its part {part}" if part else "")
    return sound(Images(list(found), labels, named, notes, origin, on_bad), file.parent)


def _pairs(file: Path, part: Part | None) -> list[tuple[str, str, int]]:
    """Of each line (of a part) but that of the headings the name of the image, the label, and the line's number."""
    rows = _rows(file)
    image, label, column = (_column(rows, names) for names in (IMAGE, LABEL, PART))
    if part is not None and column is not None:
        rows = rows[:1] + [(number, row) for number, row in rows[1:] if part_named(row[column].strip()) == part]
    if image is not None and label is not None:
        rows = rows[1:]
    elif rows and _has_columns_of_classes(rows, image or 0):
        rows, image, label = _labelled(file, rows, image or 0), 0, 1
    else:
        image, label = 0, 1
    if not rows:
        raise ValueError(f"{file} is empty; it should have an image and a label a line")
    pairs = []
    for number, row in rows:
        if len(row) <= max(image, label) or not row[label].strip():
            raise ValueError(f"{file}, line {number}: {','.join(row)!r} has no label")
        pairs.append((row[image].strip(), row[label].strip(), number))
    return pairs


def _column(rows: Rows, names: Sequence[str]) -> int | None:
    """Which column the first line calls by one of these names, the first of them first."""
    first = [cell.strip().lower() for cell in rows[0][1]] if rows else []
    return next((first.index(name) for name in names if name in first), None)


def _rows(file: Path) -> Rows:
    """The lines that have something in them, by what separates the first of them, whatever the file is called."""
    text = read_text(file)
    head = next((line for line in text.splitlines() if line.strip()), "")
    comma = ENDINGS[file.suffix.lower()]
    if comma not in head:
        comma = next((other for other in OTHERS if other in head), comma)
    lines = csv.reader(text.splitlines(), delimiter=comma)
    return [(number, row) for number, row in enumerate(lines, 1) if any(cell.strip() for cell in row)]


def _has_columns_of_classes(rows: Rows, image: int) -> bool:
    """Whether the first line names an image and classes, and all others have 0 or 1 for each class."""
    (_, first), *others = rows
    values = {cell.strip() for _, row in others for column, cell in enumerate(row) if column != image}
    return len(first) > 2 and bool(values) and values <= HOT | COLD and not values & set(first)


def _labelled(file: Path, rows: Rows, image: int) -> Rows:
    """Image and label of such a list."""
    (_, first), *others = rows
    labelled = []
    for number, row in others:
        columns = [column for column, cell in enumerate(row) if column != image and cell.strip() in HOT]
        if len(row) != len(first) or len(columns) != 1:
            raise ValueError(
                f"{file}, line {number}: {','.join(row)!r}; of the {len(first) - 1} columns of classes, one is 1 and "
                "the others are 0, since an image has one class"
            )
        labelled.append((number, [row[image], first[columns[0]]]))
    return labelled


def _in_order(names: set[str]) -> list[str]:
    return sorted(names, key=int) if all(name.isdecimal() for name in names) else sorted(names)


def _image(file: Path, name: str) -> Path | None:
    """Where an image of a list is, if anywhere; Kaggle's lists have names without endings, some come from Windows."""
    if "\\" in name and os.sep == "/" and (found := _image(file, name.replace("\\", "/"))):
        return found
    for folder in (file.parent, file.parent / file.stem, file.parent / "images"):
        for ending in ("", *sorted(EXTENSIONS)) if Path(name).suffix.lower() not in EXTENSIONS else ("",):
            if (path := folder / f"{name}{ending}").is_file():
                return path
    return None
