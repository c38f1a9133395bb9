"""Masks as Pascal VOC has them: ``JPEGImages``, ``SegmentationClass``, ``ImageSets/Segmentation``."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from limbeck.data.parts import Part, Source
from limbeck.data.problems import OnBadData, Problem, left_out
from limbeck.data.voc import CLASSES, images_of, stems_of
from limbeck.tasks.semantic.classes import FILES, Labels, meaning_of, read_labels, with_classes
from limbeck.tasks.semantic.dataset import Masks, checked


def find_voc(root: Path, ignore_index: int | None, on_bad: OnBadData) -> dict[Part, Source[Masks]]:
    """The parts that are listed."""
    listed = stems_of(root, "Segmentation")
    if not listed:
        raise ValueError(f"{root / 'ImageSets' / 'Segmentation'} has no train.txt to list the stems of images")
    return {
        part: partial(read_voc, root, stems, ignore_index=ignore_index, on_bad=on_bad) for part, stems in listed.items()
    }


def read_voc(
    root: Path,
    stems: list[str],
    classes: list[str] | None = None,
    *,
    ignore_index: int | None = None,
    on_bad: OnBadData = "error",
) -> Masks:
    """The listed images with their masks; VOC's own 21 classes where no file in the folder names others."""
    if any((root / name).is_file() for name in FILES):
        labels = read_labels(root, ignore_index)
    else:
        named = dict(enumerate(("background", *CLASSES)))
        labels = Labels(list(named.values()), meaning_of(named, ignore_index))
    images, folder = images_of(root), root / "SegmentationClass"
    problems, there = [], []
    for stem in stems:
        mask = folder / f"{stem}.png"
        if stem in images and mask.is_file():
            there.append((images[stem], mask))
        else:
            where = mask if stem in images else root / "JPEGImages" / stem
            problems.append(Problem("listed images", f"{root} lists {stem}, but there is no {where}"))
    notes = left_out(problems, on_bad, of=root, some_left=bool(there))
    labels = with_classes(labels, classes, root)
    origin = f"of {root} (Pascal VOC)"
    found = Masks(
        [image for image, _ in there], [mask for _, mask in there], labels, notes, origin=origin, on_bad=on_bad
    )
    return checked(found, root)
