"""YOLO's text files: a line an object, as fractions of the image; and the yaml that says where they are."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

from limbeck.data.images import EXTENSIONS, no_image_in
from limbeck.data.index import sizes_of
from limbeck.data.parts import Part, Source, files_below, part_named
from limbeck.data.problems import OnBadData
from limbeck.data.text import read_text
from limbeck.tasks.detection.assemble import assemble
from limbeck.tasks.detection.checks import Entry
from limbeck.tasks.detection.dataset import Objects


def yaml_in(place: Path) -> Path | None:
    """The yaml of a data set: this file, ``data.yaml`` in this folder, or the only yaml there."""
    if place.suffix in (".yaml", ".yml"):
        return place
    found = sorted([*place.glob("*.yaml"), *place.glob("*.yml")])
    return next((path for path in found if path.stem == "data"), found[0] if len(found) == 1 else None)


def find_yolo(file: Path, on_bad: OnBadData, outlines: bool) -> dict[Part, Source[Objects]]:
    """The parts that a yaml names.

    Raises:
        ValueError: It names no classes, or another number of them than it says, or a place that is not there.
    """
    content = _read_yaml(file)
    names = content.get("names")
    if isinstance(names, dict) and sorted(names) == list(range(len(names))):
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list) or not names:
        raise ValueError(f"{file} has no names; it should list the classes, as names: [cat, dog]")
    if (count := content.get("nc", len(names))) != len(names):
        raise ValueError(f"{file}: nc is {count}, but names lists {len(names)} classes; correct one of them")
    parts = {part: key for key in content if (part := part_named(str(key)))}  # exporters write valid, too
    return {
        part: partial(
            read_yolo,
            _places(file, content, key),
            names=list(map(str, names)),
            of=file,
            on_bad=on_bad,
            outlines=outlines,
        )
        for part, key in parts.items()
        if content[key]
    }


def _read_yaml(file: Path) -> dict[str, Any]:
    import yaml  # type: ignore[import-untyped]

    try:
        content = yaml.safe_load(read_text(file))
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is no yaml: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file} should say names, train and val, each in a line")
    return content


def _places(file: Path, content: dict[str, Any], part: str) -> list[Path]:
    """Folders of images, or lists of them; exporters write ``../train/images`` for what lies beside the yaml."""
    root = file.parent / str(content.get("path") or "")
    named = content[part] if isinstance(content[part], list) else [content[part]]
    places = []
    for name in map(str, named):
        tried = [root / name, file.parent / name, file.parent / name.removeprefix("../")]
        if (place := next((each for each in tried if each.exists()), None)) is None:
            raise ValueError(f"{file}: its {part} images should be in {tried[0]}, which is not there")
        places.append(place)
    return places


def read_yolo(
    places: list[Path],
    classes: list[str] | None = None,
    *,
    names: list[str],
    of: Path,
    on_bad: OnBadData = "error",
    outlines: bool = False,
) -> Objects:
    """Objects in the images of some folders.

    Args:
        places: Folders of images, or lists of their paths; each image's text file lies where ``labels`` stands for the
            last ``images`` of its path, or beside it. An image without one has no objects.
        classes: What the classes should be.
        names: Of the classes, by the numbers in the text files.
        of: The yaml.
        on_bad: What becomes of images and lines that make no sense.
        outlines: Also want each object's outline, of which text files for segmentation consist.
    """
    images = [path for place in places for path in _images(place)]
    if not images:
        raise ValueError(f"{of}: {no_image_in(places[0]) if places[0].is_dir() else f'{places[0]} lists no image'}")
    sizes = sizes_of(images, places[0])
    entries: list[Entry] = []
    annotations: list[Entry] = []
    for identity, (path, size) in enumerate(zip(images, sizes, strict=True)):
        height, width = (1, 1) if isinstance(size, str) else size  # of those that cannot be read assemble tells
        entries.append({"id": identity, "file_name": path.name, "height": height, "width": width})
        annotations += _annotations(_labels_of(path), identity, height, width)
    return assemble(
        {
            "images": entries,
            "annotations": annotations,
            "categories": [{"id": index, "name": name} for index, name in enumerate(names)],
        },
        images,
        of=of,
        folder=places[0],
        classes=classes,
        on_bad=on_bad,
        outlines=outlines,
        origin=f"of {', '.join(map(str, places))} with YOLO's text files, by {of}",
    )


def _images(place: Path) -> list[Path]:
    if place.is_dir():
        return [path for path in files_below(place) if path.suffix.lower() in EXTENSIONS]
    return [place.parent / line.strip() for line in read_text(place).splitlines() if line.strip()]


def _labels_of(image: Path) -> Path:
    before, folder, after = str(image).rpartition(f"{os.sep}images{os.sep}")
    place = Path(f"{before}{os.sep}labels{os.sep}{after}") if folder else image
    return place.with_suffix(".txt")


def _annotations(file: Path, image: int, height: int, width: int) -> list[Entry]:
    """What the lines of a text file say; a line that makes no sense gets a box of none, which is told of then."""
    if not file.is_file():
        return []
    found = []
    for number, line in enumerate(read_text(file).splitlines(), 1):
        if not (words := line.split()):
            continue
        entry: Entry = {"id": f"{file}, line {number},", "image_id": image, "bbox": line}
        try:
            entry["category_id"], values = int(float(words[0])), list(map(float, words[1:]))
        except ValueError:
            entry["category_id"], values = words[0], []
        if len(values) == 4:
            x, y, w, h = values
            entry["bbox"] = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
        elif len(values) >= 6 and len(values) % 2 == 0:
            across, down = ([value * length for value in values[i::2]] for i, length in enumerate((width, height)))
            entry["bbox"] = [min(across), min(down), max(across) - min(across), max(down) - min(down)]
            entry["segmentation"] = [[value for point in zip(across, down, strict=True) for value in point]]
        found.append(entry)
    return found
