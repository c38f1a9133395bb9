"""Folders as Pascal VOC has them: ``JPEGImages``, and lists of their stems in ``ImageSets``."""

from __future__ import annotations

from pathlib import Path

from limbeck.data.images import EXTENSIONS
from limbeck.data.parts import Part, folders_in, part_named
from limbeck.data.text import read_text

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def root_of(folder: Path) -> Path | None:
    """The folder with ``JPEGImages``: this one, or the only such below it, as in ``VOCdevkit/VOC2012``.

    Raises:
        ValueError: There are several.
    """
    if (folder / "JPEGImages").is_dir():
        return folder
    below = [each for one in folders_in(folder) for each in (one, *folders_in(one)) if (each / "JPEGImages").is_dir()]
    if len(below) > 1:
        raise ValueError(f"{folder} holds several years of VOC, {below[0]} and {below[1]}; name one of them")
    return below[0] if below else None


def stems_of(root: Path, kind: str) -> dict[Part, list[str]]:
    """The stems of the images of each part, by the lists of ``ImageSets/KIND``; ``trainval`` where it has no train."""
    lists = {path.stem.lower(): path for path in sorted((root / "ImageSets" / kind).glob("*.txt"))}
    found: dict[Part, Path] = {part: path for stem, path in lists.items() if (part := part_named(stem))}
    whole = lists.get("trainval") or lists.get("default")  # as CVAT calls its only list
    if "train" not in found and whole is not None:
        found["train"] = whole
    return {
        part: [line.split()[0] for line in read_text(path).splitlines() if line.strip()] for part, path in found.items()
    }


def images_of(root: Path) -> dict[str, Path]:
    """Images by their stems."""
    folder = root / "JPEGImages"
    return {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in EXTENSIONS}
