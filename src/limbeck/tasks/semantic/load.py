"""From a folder to images with masks, by what lies in it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from limbeck.data.parts import HeldOut, Part, Source, load_held_out, load_parts
from limbeck.data.problems import OnBadData
from limbeck.data.voc import root_of
from limbeck.tasks.semantic.cityscapes import find_cityscapes
from limbeck.tasks.semantic.dataset import Masks, check_labelled, check_several, split_off
from limbeck.tasks.semantic.folders import find_folders
from limbeck.tasks.semantic.voc import find_voc


def load_masks(
    data: Path,
    *,
    val_data: Path | None = None,
    split: HeldOut | None = None,
    ignore_index: int | None = None,
    on_bad: OnBadData = "error",
    seed: int = 0,
) -> tuple[Masks, Masks]:
    """Training and validation images with their masks, every mask read and checked once.

    Args:
        data: A folder with ``train/images``, ``train/masks`` and ``val/`` or ``test/`` likewise; ``images/train`` and
            so on; or ``images`` and ``masks``, of which a tenth is split off by seed; each pair has one stem.
            ``classes.txt`` in it names a class a line, in the order of their values, or ``VALUE NAME`` or ``R G B
            NAME`` a line; ``class_dict.csv`` or ``labelmap.txt`` name colours. Or Pascal VOC, or Cityscapes.
        val_data: Such a folder with the validation images, where they are not in ``data``.
        split: The part that is measured on; by default val, or else test.
        ignore_index: A value in the masks, beside 255, for pixels that count for nothing.
        on_bad: What becomes of an image or mask that cannot be used: an error, or left out and counted in the notes.
        seed: Of the split.

    Raises:
        ValueError: Files are missing, or a mask cannot be read, has another size than its image, or holds unknown
            values; or no mask of a part has a labelled pixel, or those for training of one class only.
    """
    find = partial(find_sources, ignore_index=ignore_index, on_bad=on_bad)
    train, val = load_parts(data, val_data, split, find, lambda masks: split_off(masks, 0.1, seed))
    return check_several(check_labelled(train)), check_labelled(val)


def load_val_masks(
    data: Path,
    classes: list[str],
    *,
    val_data: Path | None = None,
    split: HeldOut | None = None,
    ignore_index: int | None = None,
    on_bad: OnBadData = "error",
    seed: int = 0,
) -> Masks:
    """The validation images alone, for a model of these classes; the rest as of ``load_masks``."""
    find = partial(find_sources, ignore_index=ignore_index, on_bad=on_bad)
    return check_labelled(
        load_held_out(data, val_data, split, find, lambda masks: split_off(masks, 0.1, seed), classes)
    )


def find_sources(data: Path, ignore_index: int | None, on_bad: OnBadData) -> Mapping[Part, Source[Masks]]:
    """What can be read of a folder."""
    if not data.is_dir():
        raise ValueError(f"no folder {data}; it should hold images/ and masks/, or train/ and val/ with these")
    if (data / "gtFine").is_dir():
        return find_cityscapes(data, on_bad)
    if root := root_of(data):
        return find_voc(root, ignore_index, on_bad)
    return find_folders(data, ignore_index, on_bad)
