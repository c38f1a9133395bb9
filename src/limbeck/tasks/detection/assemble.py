"""From descriptions of images and annotations, in the form of a COCO json, to objects; what is wrong is found here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch

from limbeck.data.images import said_otherwise
from limbeck.data.index import sizes_of
from limbeck.data.problems import OnBadData, Problem, left_out
from limbeck.tasks.detection.checks import AnnotationCheck, Entry
from limbeck.tasks.detection.dataset import Annotated, Objects


def assemble(
    content: Entry,
    paths: Sequence[Path | Problem],
    *,
    of: Path,
    folder: Path,
    classes: list[str] | None,
    on_bad: OnBadData,
    outlines: bool,
    origin: str,
) -> Objects:
    """Objects of classes in the order of their categories' ids, or of the classes that are given.

    Args:
        content: Lists of images, annotations and categories, as a COCO json has them.
        paths: Where each image is, or why it is not.
        of: The file or folder that was read.
        folder: Of the images, by which those that are sound are remembered.
        classes: What the categories' names should be.
        on_bad: What becomes of what cannot be used.
        outlines: Also want each object's outline.
        origin: Where the images come from, for the user to read.
    """
    used = {each["category_id"] for each in content["annotations"] if isinstance(each.get("category_id"), int)}
    named, notes = of_one_name_each(content["categories"], used, of)
    categories = in_order(named, classes, of)
    index_of = {category["id"]: index for index, category in enumerate(categories)}
    entries, left, problems = _checked(content["images"], paths, folder)
    path_of = {
        entry["id"]: path
        for entry, path in zip(content["images"], paths, strict=True)
        if isinstance(path, Path) and entry.get("id") in entries
    }
    by_image: dict[int, list[Entry]] = {identity: [] for identity in entries}
    check = AnnotationCheck(index_of, outlines)
    lost = 0
    for annotation in content["annotations"]:
        identity = annotation.get("image_id")
        if not isinstance(identity, int):
            identity = None  # a list, say, cannot be looked up
        if identity in left:
            lost += 1  # its image's problem is told already
        elif problem := check(annotation, entries.get(identity), path_of.get(identity, folder)):
            problems.append(problem)
        else:
            by_image[identity].append(annotation)
    notes += left_out(problems, on_bad, of=of, some_left=bool(entries))
    images = [
        _annotated(entry, path_of[identity], by_image[identity], index_of, outlines=outlines)
        for identity, entry in entries.items()
    ]
    notes += [f"{of}: left out {lost} annotations with their images"] * bool(lost)
    check_in_pixels(images, of)
    empty = sum(not len(image.boxes) for image in images)
    notes += [f"{of}: {empty} of {len(images)} images have no object"] * bool(empty)
    return Objects(images, [category["name"] for category in categories], list(index_of), notes, origin, on_bad)


def check_in_pixels(images: Sequence[Annotated], of: Path) -> None:
    """Refuse boxes that are fractions of their images: all of them lie in the first pixel."""
    boxes = torch.cat([image.boxes for image in images])
    if len(boxes) and boxes.max() <= 1:
        raise ValueError(f"{of}: all {len(boxes)} boxes lie between 0 and 1: they are to be in pixels, not fractions")


def of_one_name_each(categories: list[Entry], used: Collection[Any], of: Path) -> tuple[list[Entry], list[str]]:
    """Categories by which classes are told apart, and what is to be said of others.

    Of those that share a name the unused are left out: Roboflow writes the data set's name as a category of its own,
    which often is that of a class.

    Raises:
        ValueError: Several that share a name are used.
    """
    kept: dict[str, Entry] = {}
    notes = []
    for category in sorted(categories, key=lambda category: category["id"] not in used):  # the used ones first
        first = kept.setdefault(category["name"], category)
        if first is category:
            continue
        both = f"the categories {first['id']} and {category['id']} are both called {category['name']!r}"
        if category["id"] in used:
            raise ValueError(f"{of}: {both}, and both have objects; give each a name of its own, or the objects one id")
        notes.append(f"{of}: {both}; the latter has no objects, and is left out")
    return list(kept.values()), notes


def in_order(categories: list[Entry], classes: list[str] | None, of: Path) -> list[Entry]:
    """Categories in the order of their ids, or where classes are given, in theirs; some may lack here."""
    ordered = sorted(categories, key=lambda category: int(category["id"]))
    names = [category["name"] for category in ordered]
    if classes is None or names == classes:
        return ordered
    if unknown := sorted(set(names) - set(classes)):
        raise ValueError(f"{of}: the training images have no category {', '.join(unknown[:5])}")
    free = max(int(category["id"]) for category in ordered) + 1  # for those that this file has no object of
    absent = [name for name in classes if name not in names]
    ordered += [{"id": free + place, "name": name} for place, name in enumerate(absent)]
    return sorted(ordered, key=lambda category: classes.index(category["name"]))


def _checked(
    entries: list[Entry], paths: Sequence[Path | Problem], folder: Path
) -> tuple[dict[int, Entry], set[int], list[Problem]]:
    """Images by id, the ids of those that cannot be used, and why."""
    existing = [path for path in paths if isinstance(path, Path)]
    sizes = dict(zip(existing, sizes_of(existing, folder), strict=True))
    wrong = [
        path if isinstance(path, Problem) else _size_problem(entry, path, sizes[path])
        for entry, path in zip(entries, paths, strict=True)
    ]
    counted = Counter(entry["id"] for entry in entries if isinstance(entry.get("id"), int))
    for index, entry in enumerate(entries):
        if not wrong[index] and counted[entry["id"]] > 1:  # whose the annotations are, nobody knows
            what = f"image {entry['id']}, {entry['file_name']}, has an id that another image has too"
            wrong[index] = Problem("images with the id of another", what)
    usable = {entry["id"]: entry for entry, problem in zip(entries, wrong, strict=True) if not problem}
    return usable, counted.keys() - usable.keys(), [problem for problem in wrong if problem]


def _size_problem(entry: Entry, path: Path, size: tuple[int, int] | str) -> Problem | None:
    if isinstance(size, str):
        return Problem("unreadable images", size)
    wanted = (entry["height"], entry["width"])
    if size == wanted:
        return None
    return Problem("images of another size", said_otherwise(path, wanted, "its annotation says"))


def _annotated(
    entry: Entry, path: Path, annotations: list[Entry], index_of: dict[int, int], *, outlines: bool
) -> Annotated:
    height, width = entry["height"], entry["width"]
    boxes = torch.tensor([each["bbox"] for each in annotations], dtype=torch.float64).reshape(-1, 4)
    areas = [
        area if (area := each.get("area")) is not None else each["bbox"][2] * each["bbox"][3] for each in annotations
    ]
    boxes[:, 2:] += boxes[:, :2]
    edges = torch.tensor([width, height, width, height], dtype=torch.float64)
    return Annotated(
        id=entry["id"],
        path=path,
        size=(height, width),
        boxes=boxes.clamp(min=torch.zeros(4, dtype=torch.float64), max=edges).float(),
        labels=torch.tensor([index_of[each["category_id"]] for each in annotations], dtype=torch.int64),
        crowd=torch.tensor([bool(each.get("iscrowd")) for each in annotations], dtype=torch.bool),
        areas=torch.tensor(areas, dtype=torch.float32),
        outlines=[each["segmentation"] for each in annotations] if outlines else [],
    )
