"""From a folder to images with objects, by what lies in it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from limbeck.data.parts import HeldOut, Part, Source, load_held_out, load_parts
from limbeck.data.problems import OnBadData, absent_of
from limbeck.tasks.detection.coco import find_coco
from limbeck.tasks.detection.dataset import Objects, check_some, split_off
from limbeck.tasks.detection.voc import find_voc
from limbeck.tasks.detection.yolo import find_yolo, yaml_in


def load_objects(
    data: Path,
    *,
    val_data: Path | None = None,
    split: HeldOut | None = None,
    on_bad: OnBadData = "error",
    outlines: bool = False,
    seed: int = 0,
) -> tuple[Objects, Objects]:
    """Training and validation images with their objects.

    Args:
        data: A folder with ``annotations/instances_train2017.json`` or ``annotations/train.json``, ``val`` or ``test``
            likewise, and the images in ``images/train2017``, ``train2017`` or ``train``, and so on; or as Roboflow has
            COCO's json; a folder with YOLO's ``data.yaml``, or such a file; or Pascal VOC's xml files. Where nothing
            is held out, a tenth is split off by seed.
        val_data: Such a folder with the validation images, where they are not in ``data``.
        split: The part that is measured on; by default val, or else test.
        on_bad: What becomes of an image that is missing, unreadable or of another size than its json says, and of an
            annotation that makes no sense: an error, or left out and counted in the notes.
        outlines: Also want each object's outline.
        seed: Of the split.

    Raises:
        ValueError: Something is missing or wrong, by file and id; or a part has no object.
    """
    find = partial(find_sources, on_bad=on_bad, outlines=outlines)
    train, val = load_parts(data, val_data, split, find, lambda objects: split_off(objects, 0.1, seed))
    return _checked(train, data, "train"), _checked(val, val_data or data, "measure")


def load_val_objects(
    data: Path,
    classes: list[str],
    *,
    val_data: Path | None = None,
    split: HeldOut | None = None,
    on_bad: OnBadData = "error",
    outlines: bool = False,
    seed: int = 0,
) -> Objects:
    """The validation images alone, for a model of these classes; the rest as of ``load_objects``."""
    find = partial(find_sources, on_bad=on_bad, outlines=outlines)
    val = load_held_out(data, val_data, split, find, lambda objects: split_off(objects, 0.1, seed), classes)
    return _checked(val, val_data or data, "measure")


def _checked(objects: Objects, place: Path, purpose: str) -> Objects:
    """Images of which one has an object; their notes tell of which classes none is."""
    absent = absent_of(objects.classes, {label for image in objects.images for label in image.labels.tolist()})
    objects.notes.extend([f"{place}: no object to {purpose} on is of {absent}"] * bool(absent))
    return check_some(objects)


def find_sources(data: Path, on_bad: OnBadData, outlines: bool) -> Mapping[Part, Source[Objects]]:
    """What can be read of a folder or of a yaml."""
    if not data.is_dir() and not (data.is_file() and yaml_in(data)):
        raise ValueError(f"no folder {data}; it should hold annotations/ and the images that they name, or data.yaml")
    if data.is_dir() and (found := find_coco(data, on_bad, outlines)):
        return found
    if file := yaml_in(data):
        return find_yolo(file, on_bad, outlines)
    if found := find_voc(data, on_bad):
        if outlines:
            raise ValueError(f"{data} has the xml files of Pascal VOC, which give boxes alone; masks need outlines")
        return found
    several = sorted(path.name for path in data.iterdir() if path.suffix in (".yaml", ".yml"))
    raise ValueError(
        f"{data} has no annotations that are known: COCO's annotations/instances_train.json or annotations/train.json, "
        "YOLO's data.yaml, or the xml files of Pascal VOC"
        + (f"; it has {', '.join(several[:3])}: name one with --data" if several else "")
    )
