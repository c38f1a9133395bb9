"""Sets of images that nothing was tuned for, made of public ones: crops of objects as classes, and parts of others."""

from __future__ import annotations

import json
from bisect import bisect
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch
from PIL import Image
from sklearn.datasets import load_digits

from limbeck.tasks.classification.dataset import first_of_each_class
from limbeck.tasks.classification.folders import read_folder

MOST = 600  # crops of one class, or blood cells would be red ones nearly all
SMALLEST = 16  # pixels, of the shorter side of a crop
FEWEST = 20  # training crops of a class
PATCH, VOID = 24, 11  # half of a patch's side, in pixels; the first class that is none
SCENE = 64  # pixels, of a side
EACH = {"train": 120, "val": 60}  # patches of a class
KINDS = {  # of COCO's objects, by their first category's id
    1: "person",
    2: "vehicle",
    10: "outdoor",
    16: "animal",
    27: "accessory",
    34: "sports",
    44: "kitchen",
    52: "food",
    62: "furniture",
    72: "electronic",
    78: "appliance",
    84: "indoor",
}


def made(name: str, root: Path, out: Path) -> str:
    """The data of this name as a task takes it, made in ``out`` where it is not there yet.

    Args:
        name: A key of ``MAKE``, or what is taken as it is: ``digits``, or a folder in ``root``.
        root: Holds cifar10, camvid, bccd and coco128.
        out: Where what is made is kept.
    """
    if name == "digits":
        return name
    if name not in MAKE:
        return str(root / name)
    if not (out / name / "made").is_file():
        MAKE[name](root, out / name)
        (out / name / "made").touch()
    return str(out / name)


def part_of_cifar10(root: Path, out: Path) -> None:
    """10,000 training and 2,000 test images, evenly over the classes."""
    for part, count in {"train": 10_000, "test": 2_000}.items():
        images = read_folder(root / "cifar10" / part)
        for index in first_of_each_class(images, count, seed=0):
            path = images.items[index]
            assert isinstance(path, Path)
            link(out / part / path.parent.name / path.name, path)


def camvid(root: Path, out: Path) -> None:
    """CamVid with its test images to measure on: its validation images are a single drive, in another light."""
    link(out / "classes.txt", root / "camvid" / "classes.txt")
    for part in ("train", "test"):
        link(out / part, root / "camvid" / part)


def bccd(root: Path, out: Path) -> None:
    """BCCD with its test images to measure on."""
    for part in ("train", "test"):
        link(out / part, root / "bccd" / part)
        link(out / "annotations" / f"{part}.json", root / "bccd" / "annotations" / f"{part}.json")


def cells(root: Path, out: Path) -> None:
    """Crops of BCCD's blood cells: three classes."""
    for part, split in {"train": "train", "val": "test"}.items():
        coco = json.loads((root / "bccd" / "annotations" / f"{split}.json").read_text())
        kinds = {category["id"]: category["name"] for category in coco["categories"]}
        crop(coco, kinds, root / "bccd" / split, out / part)


def objects(root: Path, out: Path) -> None:
    """Crops of coco128's objects, by what they are kinds of."""
    enough: set[str] | None = None
    for part in ("train", "val"):
        coco = json.loads((root / "coco128" / "annotations" / f"instances_{part}2017.json").read_text())
        starts = list(KINDS)
        kinds = {each["id"]: KINDS[starts[bisect(starts, each["id"]) - 1]] for each in coco["categories"]}
        if enough is None:
            counts = Counter(kinds[box["category_id"]] for box in coco["annotations"] if is_large(box))
            enough = {kind for kind, count in counts.items() if count >= FEWEST}
        crop(
            coco,
            {key: kind for key, kind in kinds.items() if kind in enough},
            root / f"coco128/images/{part}2017",
            out / part,
        )


def crop(coco: dict[str, Any], kinds: dict[int, str], images: Path, out: Path) -> None:
    """Write what has a box around it to OUT/KIND/ID.png."""
    files = {image["id"]: image["file_name"] for image in coco["images"]}
    taken: Counter[str] = Counter()
    for box in coco["annotations"]:
        kind = kinds.get(box["category_id"])
        if kind is None or not is_large(box) or taken[kind] == MOST:
            continue
        taken[kind] += 1
        left, top, width, height = box["bbox"]
        path = out / kind / f"{box['id']:06}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(images / files[box["image_id"]]) as image:
            image.convert("RGB").crop((left, top, left + width, top + height)).resize((48, 48)).save(path)


def is_large(box: dict[str, Any]) -> bool:
    return min(box["bbox"][2:]) >= SMALLEST


def patches(root: Path, out: Path) -> None:
    """Pieces of CamVid's photos, by what is in the middle of each: sky, tree, car and so on."""
    names = (root / "camvid" / "classes.txt").read_text().split()
    generator = torch.Generator().manual_seed(0)
    for part, source in {"train": "train", "val": "test"}.items():
        taken: Counter[str] = Counter()
        for photo in sorted((root / "camvid" / source / "images").iterdir()):
            with Image.open(photo) as image, Image.open(photo.parents[1] / "masks" / f"{photo.stem}.png") as mask:
                image, mask = image.convert("RGB"), mask.copy()
            rows, columns = (
                torch.randint(PATCH, size - PATCH, (30,), generator=generator).tolist()
                for size in (image.height, image.width)
            )
            for row, column in zip(rows, columns, strict=True):
                value = mask.getpixel((column, row))
                if value >= VOID or taken[names[value]] == EACH[part]:
                    continue
                taken[names[value]] += 1
                path = out / part / names[value] / f"{taken[names[value]]:04}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                image.crop((column - PATCH, row - PATCH, column + PATCH, row + PATCH)).save(path)


def scenes(root: Path, out: Path) -> None:
    """Noise with two to four digits of scikit-learn in it: easy enough for a transformer that learns from scratch."""
    digits = load_digits()
    random = Random(0)
    for part, (first, last, count) in {"train": (0, 1400, 800), "test": (1400, len(digits.target), 200)}.items():
        coco: dict[str, Any] = {"images": [], "annotations": []}
        coco["categories"] = [{"id": digit, "name": str(digit)} for digit in range(10)]
        (out / part).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            scene = Image.frombytes("L", (SCENE, SCENE), random.randbytes(SCENE**2)).point(lambda value: value // 3)
            size = {"file_name": f"{index:04}.png", "width": SCENE, "height": SCENE}
            coco["images"].append({"id": index, **size})
            quarters = [(left, top) for left in (0, SCENE // 2) for top in (0, SCENE // 2)]
            for left, top in random.sample(quarters, random.randint(2, 4)):
                chosen, side = random.randrange(first, last), random.randint(16, SCENE // 2)
                left, top = (start + random.randint(0, SCENE // 2 - side) for start in (left, top))
                digit = Image.fromarray((digits.images[chosen] * 15).astype("uint8")).resize((side, side))
                scene.paste(255, (left, top), digit)
                box = {"bbox": [left, top, side, side], "category_id": int(digits.target[chosen])}
                box |= {"id": len(coco["annotations"]), "image_id": index, "area": side**2, "iscrowd": 0}
                coco["annotations"].append(box)
            scene.convert("RGB").save(out / part / size["file_name"])
        (out / "annotations").mkdir(exist_ok=True)
        (out / "annotations" / f"{part}.json").write_text(json.dumps(coco))


def link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target.resolve())


MAKE: dict[str, Callable[[Path, Path], None]] = {
    "cifar10": part_of_cifar10,
    "camvid": camvid,
    "bccd": bccd,
    "cells": cells,
    "objects": objects,
    "patches": patches,
    "scenes": scenes,
}
