"""Images with objects: COCO's json and the images that it names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from limbeck.data.images import read_image
from limbeck.tasks.detection.checks import AnnotationCheck, Entry, Problem, image_problem, place_of, read_json

OnBadData = Literal["error", "skip"]
PARTS = {"train": ("train", "train2017"), "val": ("val", "val2017", "test")}


@dataclass(frozen=True)
class Annotated:
    """An image and its objects, n of them."""

    id: int  # as the json has it
    path: Path
    size: tuple[int, int]  # height and width in pixels
    boxes: Tensor  # (n, 4) float32: left, top, right, bottom, in pixels
    labels: Tensor  # (n) int64: index of the class
    crowd: Tensor  # (n) bool: a group that is not counted one by one
    areas: Tensor  # (n) float32: of the object, in square pixels
    outlines: list[Any] = field(default_factory=list)  # (n) polygons or run-length encodings, as the json has them


@dataclass(frozen=True)
class Objects:
    """Annotated images."""

    images: Sequence[Annotated]
    classes: list[str]
    ids: list[int]  # of the categories, as the json has them, in the order of the classes
    notes: list[str] = field(default_factory=list)  # what the user should read

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> Tensor:
        """One image (3, H, W) uint8; ``ValueError`` that names the file where it is not as the json says."""
        wanted = self.images[index]
        image = read_image(wanted.path)
        if tuple(image.shape[1:]) != wanted.size:
            height, width = wanted.size
            raise ValueError(
                f"{wanted.path} is {image.shape[2]}x{image.shape[1]} pixels, its json says {width}x{height}"
            )
        return image

    def take(self, indices: Sequence[int]) -> Objects:
        return replace(self, images=[self.images[index] for index in indices])


def load_coco(data: Path, *, on_bad: OnBadData = "error", outlines: bool = False) -> tuple[Objects, Objects]:
    """Training and validation images with their objects.

    Args:
        data: A folder with ``annotations/instances_train2017.json`` or ``annotations/train.json``, ``val`` or ``test``
            likewise, and the images in ``images/train2017``, ``train2017`` or ``train``, and so on.
        on_bad: What becomes of an image that is missing, unreadable or of another size than its json says, and of an
            annotation that makes no sense: an error, or left out and counted in the notes.
        outlines: Also want each object's outline.

    Raises:
        ValueError: Something is missing or wrong, by file and id.
    """
    if not data.is_dir():
        raise ValueError(f"no folder {data}; it should hold annotations/ and the images that they name")
    train, val = (
        read_coco(*_find(data, names), on_bad=on_bad, outlines=outlines) for names in (PARTS["train"], PARTS["val"])
    )
    named = [set(zip(part.ids, part.classes, strict=True)) for part in (train, val)]
    if differ := sorted(named[0] ^ named[1]):
        shown = ", ".join(f"{identity} {name}" for identity, name in differ[:5])
        raise ValueError(f"{data}: training and validation have not the same categories; only one has {shown}")
    return train, val


def _find(data: Path, names: Sequence[str]) -> tuple[Path, Path]:
    """The json and the image folder of a part."""
    for name in names:
        for file in (data / "annotations" / f"instances_{name}.json", data / "annotations" / f"{name}.json"):
            if file.is_file():
                folders = [data / "images" / name, data / name, data / "images", data]
                return file, next(folder for folder in folders if folder.is_dir())
    tried = ", ".join(f"instances_{name}.json" for name in names)
    raise ValueError(f"{data / 'annotations'} has none of {tried}, nor {names[0]}.json")


def read_coco(file: Path, folder: Path, *, on_bad: OnBadData = "error", outlines: bool = False) -> Objects:
    """The objects that a json describes, in images of a folder; classes are in the order of their categories' ids."""
    content = read_json(file)
    categories = sorted(content["categories"], key=lambda category: int(category["id"]))
    index_of = {category["id"]: index for index, category in enumerate(categories)}
    entries, left_out, problems = _looked_over(content["images"], folder)
    paths = {identity: place_of(folder, entry["file_name"]) for identity, entry in entries.items()}
    by_image: dict[int, list[Entry]] = {identity: [] for identity in entries}
    check = AnnotationCheck(index_of, outlines)
    lost = 0
    for annotation in content["annotations"]:
        identity: Any = annotation.get("image_id")
        if not isinstance(identity, int):
            identity = None  # a list, say, cannot be looked up
        if identity in left_out:
            lost += 1  # its image's problem is told already
        elif problem := check(annotation, entries.get(identity), paths.get(identity, folder)):
            problems.append(problem)
        else:
            by_image[identity].append(annotation)
    if problems and (on_bad == "error" or not entries):
        remedy = "mend the data" + (", or pass --on-bad-data skip to leave out what is wrong" if entries else "")
        raise ValueError(f"{file}: {problems[0].what} (problems found: {len(problems)}); {remedy}")
    images = [
        _annotated(entry, paths[identity], by_image[identity], index_of, outlines=outlines)
        for identity, entry in entries.items()
    ]
    notes = [f"{file}: {note}" for note in _notes(problems, lost, images)]
    return Objects(images, [category["name"] for category in categories], list(index_of), notes)


def _looked_over(entries: list[Entry], folder: Path) -> tuple[dict[int, Entry], set[int], list[Problem]]:
    """Images by id, the ids of those that cannot be used, and why."""
    with ThreadPoolExecutor() as pool:  # each is opened
        wrong = list(pool.map(lambda entry: image_problem(entry, folder), entries))
    counted = Counter(entry["id"] for entry in entries if isinstance(entry.get("id"), int))
    for place, entry in enumerate(entries):
        if not wrong[place] and counted[entry["id"]] > 1:  # whose the annotations are, nobody knows
            what = f"image {entry['id']}, {entry['file_name']}, has an id that another image has too"
            wrong[place] = Problem("images with the id of another", what)
    usable = {entry["id"]: entry for entry, problem in zip(entries, wrong, strict=True) if not problem}
    return usable, counted.keys() - usable.keys(), [problem for problem in wrong if problem]


def _notes(problems: list[Problem], lost: int, images: Sequence[Annotated]) -> list[str]:
    first = {problem.kind: problem.what for problem in reversed(problems)}
    counts = Counter(problem.kind for problem in problems)
    notes = [f"left out {count} {kind}, the first: {first[kind]}" for kind, count in counts.items()]
    notes += [f"left out {lost} annotations with their images"] * bool(lost)
    empty = sum(not len(image.boxes) for image in images)
    return notes + [f"{empty} of {len(images)} images have no object"] * bool(empty)


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
