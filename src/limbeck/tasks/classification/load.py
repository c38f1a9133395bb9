"""From a folder, a list or the name of a data set to labelled images, by what lies there."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from functools import partial
from pathlib import Path

from limbeck.data.parts import HeldOut, Part, Source, folders_in, load_held_out, load_parts, parts_in
from limbeck.data.problems import OnBadData, absent_of
from limbeck.tasks.classification.dataset import Images, split_off
from limbeck.tasks.classification.embedded import load_embedded
from limbeck.tasks.classification.folders import find_folders
from limbeck.tasks.classification.lists import ENDINGS, find_lists

NAMED = {"cifar10": "cifar10:DIR", "cifar100": "cifar100:DIR", "digits": "digits"}  # data sets that come with a library


def load_images(
    data: str,
    *,
    val_data: Path | None = None,
    split: HeldOut | None = None,
    on_bad: OnBadData = "error",
    seed: int = 0,
) -> tuple[Images, Images]:
    """Training and validation images.

    Args:
        data: A folder with ``train/CLASS/*.jpg`` and ``val/`` or ``test/`` likewise; one with ``CLASS/*.jpg``, of which
            a tenth is split off by seed; one with lists ``train.csv`` and ``val.csv``, or such a list;
            ``cifar10:DIR`` or ``cifar100:DIR``, downloaded to DIR by torchvision; or ``digits``.
        val_data: A folder or list of the validation images, where they are not in ``data``.
        split: The part that is measured on; by default val, or else test.
        on_bad: What becomes of an image that cannot be decoded: an error, or left out and counted in the notes.
        seed: Of the split.

    Raises:
        ValueError: No images, one class only, an empty one, others in another part, or an unreadable file.
    """
    if embedded := load_embedded(data, seed):
        if val_data is not None or split is not None:
            raise ValueError(f"{data} brings its own validation images; leave out --val-data and --split")
        return embedded
    find = partial(find_sources, on_bad=on_bad)
    train, val = load_parts(Path(data), val_data, split, find, lambda images: split_off(images, 0.1, seed))
    if len(train.classes) < 2:
        raise ValueError(f"{data} has one class only ({train.classes[0]}); a classifier needs two")
    return train, _telling(val, val_data or data)


def load_val_images(
    data: str,
    classes: list[str],
    *,
    val_data: Path | None = None,
    split: HeldOut | None = None,
    on_bad: OnBadData = "error",
    seed: int = 0,
) -> Images:
    """The validation images alone, for a model of these classes; the rest as of ``load_images``."""
    if val_data is None and (embedded := load_embedded(data, seed)):
        if split is not None:
            raise ValueError(f"{data} has validation images alone; leave out --split")
        return embedded[1]
    find = partial(find_sources, on_bad=on_bad)
    val = load_held_out(Path(data), val_data, split, find, lambda images: split_off(images, 0.1, seed), classes)
    return _telling(val, val_data or data)


def _telling(val: Images, place: Path | str) -> Images:
    """Images to measure on, whose notes tell of which classes none is."""
    absent = absent_of(val.classes, set(val.labels))
    val.notes.extend([f"{place}: no image to measure on is of {absent}"] * bool(absent))
    return val


def find_sources(place: Path, on_bad: OnBadData) -> Mapping[Part, Source[Images]]:
    """What can be read of a list, or of a folder."""
    if place.suffix.lower() in ENDINGS and place.is_file():
        return find_lists(place, on_bad)
    if not place.is_dir():
        nearest = get_close_matches(str(place).partition(":")[0].lower(), NAMED, n=1)
        hint = f"; did you mean {NAMED[nearest[0]]}?" if nearest else ""
        raise ValueError(
            f"no folder {place}; pass a folder of images, {', '.join(NAMED.values())}, or a list in .csv{hint}"
        )
    lists = find_lists(place, on_bad)
    has_classes = any(folders_in(each) for each in parts_in(place).values())
    return lists if "train" in lists and not has_classes else find_folders(place, on_bad)
