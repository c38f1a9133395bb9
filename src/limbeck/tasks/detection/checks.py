"""What can be wrong with a COCO json and the images that it names, in words."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

from limbeck.data.problems import Problem

Entry = dict[str, Any]
BEYOND = 1  # pixels that a box may reach over its image's edge, for annotation tools that round
LARGEST = 1e12  # what is not below, as infinity and NaN, is no number of pixels


def read_json(file: Path) -> Entry:
    """The lists of images, annotations and categories; ``ValueError`` where a file is not of this form."""
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file} cannot be read as json, it may be cut short ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file} is no COCO json: it holds a {type(content).__name__}, not images and so on by name")
    for key in ("images", "annotations", "categories"):
        entries = content.get(key)
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ValueError(f"{file} is no COCO json: it has no list of {key!r}")
    for category in content["categories"]:
        if lacking := _lacking(category, {"id": int, "name": str}):
            raise ValueError(f"{file} is no COCO json: category {category.get('id')} has {lacking}")
    for key in ("images", "categories"):
        if not content[key]:
            raise ValueError(f"{file} names no {key}")
    counted = Counter(category["id"] for category in content["categories"])
    if repeated := [identity for identity, count in counted.items() if count > 1]:
        raise ValueError(f"{file} defines the category {repeated[0]} more than once")
    return content


def place_of(folder: Path, name: str) -> Path:
    """Where an image is whose name may repeat the end of its folder's path, as ``val2017/x.jpg`` in ``val2017``."""
    parts = PurePosixPath(name).parts
    places = [folder / name]
    places += [folder.joinpath(*parts[n:]) for n in range(1, len(parts)) if folder.parts[-n:] == parts[:n]]
    if "\\" in name and os.sep == "/":  # as tools on Windows write it
        places.append(place_of(folder, name.replace("\\", "/")))
    return next(filter(os.path.isfile, places), places[0])


def image_path(entry: Entry, folder: Path) -> Path | Problem:
    """Where an image is, or why it is not."""
    if lacking := _lacking(entry, {"id": int, "file_name": str, "height": int, "width": int}):
        return Problem("images without what they need", f"image {entry.get('id')} has {lacking}")
    name = entry["file_name"]
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts:
        return Problem("images outside the folder", f"image {entry['id']} is {name}, which leads outside {folder}")
    path = place_of(folder, name)
    return path if os.path.isfile(path) else Problem("missing images", f"{path} does not exist")


@dataclass(frozen=True)
class AnnotationCheck:
    """Finds what is wrong with annotations."""

    categories: dict[int, Any]  # those that there are, by id
    outlines: bool

    def __call__(self, annotation: Entry, image: Entry | None, path: Path) -> Problem | None:
        """The first thing that is wrong.

        Args:
            annotation: As the json has it.
            image: That it is of, where there is one.
            path: Of the image.
        """
        name = f"annotation {annotation.get('id')}"
        if image is None:
            what = f"{name} is of the image {annotation.get('image_id')!r}, which the file does not define"
            return Problem("annotations of unknown images", what)
        category = annotation.get("category_id")
        if not isinstance(category, int) or category not in self.categories:
            what = f"{name} is of the category {category!r}, which the file does not define"
            return Problem("annotations of unknown categories", what)
        size = (image["height"], image["width"])
        box = annotation.get("bbox")
        if not _are_numbers(box) or len(box) != 4 or min(box[2:]) <= 0:
            what = f"{name} has the box {box}, not left, top, and a width and height above 0"
            return Problem("annotations without a proper box", what)
        if _is_outside(box, size):
            what = f"{name} has the box {box}, outside its image {path} of {size[1]}x{size[0]} pixels"
            return Problem("annotations with a box outside the image", what + _if_corners(box, size))
        area = annotation.get("area")
        if area is not None and not (_are_numbers([area]) and area >= 0):
            return Problem("annotations without a proper area", f"{name} has the area {area}")
        if (crowd := annotation.get("iscrowd")) not in (None, 0, 1):
            return Problem("annotations without a proper iscrowd", f"{name} has the iscrowd {crowd!r}, not 0 or 1")
        if self.outlines and (wrong := outline_problem(annotation.get("segmentation"), size)):
            return Problem("annotations without a proper outline", f"{name} has {wrong}; its image is {path}")
        return None


def outline_problem(outline: Any, size: tuple[int, int]) -> str:
    """What is wrong with the outline of an object in an image of this height and width; empty where nothing is."""
    if not outline:
        return "no outline"
    if isinstance(outline, dict):
        return _run_lengths_problem(outline, size)
    if not isinstance(outline, list):
        return f"the outline {str(outline)[:40]!r}, neither polygons nor run lengths"
    for polygon in outline:
        if not _are_numbers(polygon) or len(polygon) < 6 or len(polygon) % 2:
            return f"the polygon {str(polygon)[:40]}, not three or more pairs of numbers"
        for numbers, length in ((polygon[::2], size[1]), (polygon[1::2], size[0])):
            # Tools may draw over the edge; but drawing takes memory by the length of the lines.
            if min(numbers) < -length or max(numbers) > 2 * length:
                return f"a polygon from {min(numbers)} to {max(numbers)}, of {length} pixels"
    if not any(_has_area(polygon, size) for polygon in outline):
        return f"the outline {str(outline)[:60]}, of no area in its image of {size[1]}x{size[0]} pixels"
    return ""


def _has_area(polygon: list[float], size: tuple[int, int]) -> bool:
    """Whether a polygon encloses something, and its extent meets the image."""
    across, down = polygon[::2], polygon[1::2]
    following = zip(across[1:] + across[:1], down[1:] + down[:1], strict=True)
    twice = sum(x * below - right * y for x, y, (right, below) in zip(across, down, following, strict=True))
    meets = all(max(part) > 0 and min(part) < length for part, length in ((across, size[1]), (down, size[0])))
    return meets and abs(twice) > 1e-6


def _run_lengths_problem(outline: Entry, size: tuple[int, int]) -> str:
    from faster_coco_eval.core import mask

    counts: Any = outline.get("counts")
    if outline.get("size") != list(size):
        return f"run lengths for the size {outline.get('size')}, not {list(size)}"
    if isinstance(counts, str):
        try:
            drawn = mask.decode(outline).any()
        except (ValueError, RuntimeError) as error:
            return f"run lengths that cannot be decoded ({error})"
        return "" if drawn else "run lengths of no pixel"
    elif not _are_numbers(counts) or not all(isinstance(count, int) and count >= 0 for count in counts):
        return f"the run lengths {str(counts)[:40]}"
    elif sum(counts) != size[0] * size[1]:
        return f"run lengths of {sum(counts)} pixels, not {size[0] * size[1]}"
    elif not sum(counts[1::2]):
        return "run lengths of no pixel"
    return ""


def _lacking(entry: Entry, kinds: dict[str, type]) -> str:
    """Which key is not there, is of another kind, or is a size of nothing; empty where none is."""
    for key, kind in kinds.items():
        if key not in entry:
            return f"no {key!r}"
        if isinstance(entry[key], kind) and key in ("height", "width") and entry[key] < 1:
            return f"the {key} {entry[key]}"
        if not isinstance(entry[key], kind):
            return f"the {key} {entry[key]!r}, not {'text' if kind is str else 'an integer'}"
    return ""


def _are_numbers(values: Any) -> TypeGuard[list[float]]:
    """Whether this is a list of finite numbers."""
    return isinstance(values, list) and all(isinstance(each, int | float) and abs(each) < LARGEST for each in values)


def _if_corners(box: list[float], size: tuple[int, int]) -> str:
    """What is to be said of a box outside its image which lies inside if its numbers are those of two corners."""
    corners = [*box[:2], box[2] - box[0], box[3] - box[1]]
    if min(corners[2:]) <= 0 or _is_outside(corners, size):
        return ""
    return "; if these are left, top, right and bottom: a box is left, top, width and height"


def _is_outside(box: list[float], size: tuple[int, int]) -> bool:
    """Whether a box reaches too far over an edge, or has nothing of the image."""
    for low, extent, length in zip(box[:2], box[2:], reversed(size), strict=True):
        high = low + extent
        if low < -BEYOND or high > length + BEYOND or min(high, length) <= max(low, 0):
            return True
    return False
