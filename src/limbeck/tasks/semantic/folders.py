"""Images and masks in two folders, in which each pair has one stem."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from limbeck.data.images import EXTENSIONS, no_image_in
from limbeck.data.parts import KNOWN, Part, Source, files_below, folders_in, parts_in, refuse_unknown, resembles_part
from limbeck.data.problems import OnBadData, left_out
from limbeck.tasks.semantic.classes import FILES, Labels, read_labels, with_classes
from limbeck.tasks.semantic.dataset import Masks, checked, without_mask

IMAGES = ("images", "img_dir", "image", "imgs")  # the second of each is mmsegmentation's, annotations is ADE20K's
MASKS = ("masks", "ann_dir", "mask", "annotations", "labels")
AFTER_IMAGES = ("{}_labels", "{}_masks", "{}annot")  # called so beside train and so on: CamVid's, and SegNet's
ENDINGS = ("_mask", "_L")  # that stems of masks may have
LOSSLESS = {".png", ".bmp", ".tif", ".tiff", ".gif"}
Twins = tuple[Path, Path]  # of images and of masks


def find_folders(folder: Path, ignore_index: int | None, on_bad: OnBadData) -> dict[Part, Source[Masks]]:
    """The parts of a folder, as ``train/images`` or ``images/train``; or all of it as the training images."""
    places = twins_in(folder)
    return {
        part: partial(read_pairs, twins, data=folder, ignore_index=ignore_index, on_bad=on_bad)
        for part, twins in places.items()
    }


def twins_in(folder: Path) -> dict[Part, Twins]:
    """The folders of images and of masks of each part."""
    if _named(folder, IMAGES):
        images, masks = _twins(folder)
        parts, of_masks = parts_in(images), parts_in(masks)
        if missing := [path for part, path in parts.items() if part not in of_masks and part != "test"]:
            raise ValueError(f"{missing[0]} has no counterpart in {masks}; masks lie there as the images do here")
        found = {part: (path, of_masks[part]) for part, path in parts.items() if part in of_masks}
        others = [each for each in folders_in(images) if each not in parts.values() and resembles_part(each.name)]
        refuse_unknown(found, others)
        return found or {"train": (images, masks)}
    if called := _called_after_images(folder):
        return called
    parts = {part: path for part, path in parts_in(folder).items() if _named(path, IMAGES)}
    others = [each for each in folders_in(folder) if each not in parts.values() and _named(each, IMAGES)]
    if others and len(parts) < 2:
        raise ValueError(
            f"{folder} holds {others[0].name}, which has images but is no part that is known; known names are {KNOWN}"
        )
    found = {part: _twins(path) for part, path in parts.items() if part != "test" or _named(path, MASKS)}
    return found or {"train": _twins(folder)}  # test images are often published without masks


def _called_after_images(folder: Path) -> dict[Part, Twins]:
    """The parts of which the masks lie in ``train_labels`` and so on, and the images in ``train``; none otherwise."""
    parts = {part: path for part, path in parts_in(folder).items() if not _named(path, IMAGES)}
    twins = {
        part: _named(folder, tuple(each.format(path.name) for each in AFTER_IMAGES)) for part, path in parts.items()
    }
    found = {part: (parts[part], masks) for part, masks in twins.items() if masks is not None}
    if found and (missing := [path for part, path in parts.items() if part not in found and part != "test"]):
        other = next(iter(found.values()))[0].name
        raise ValueError(f"{missing[0]} has images, but no folder of masks is called after it, as there is for {other}")
    return found


def _twins(folder: Path) -> Twins:
    images, masks = _named(folder, IMAGES), _named(folder, MASKS)
    if images is None or masks is None:
        missing = folder / (IMAGES if images is None else MASKS)[0]
        raise ValueError(f"no folder {missing}; masks lie beside images, with the same stems")
    return images, masks


def _named(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def read_pairs(
    twins: Twins,
    classes: list[str] | None = None,
    *,
    data: Path,
    ignore_index: int | None = None,
    on_bad: OnBadData = "error",
) -> Masks:
    """The images of a folder with the masks of another.

    Args:
        twins: Both folders.
        classes: What the classes should be.
        data: The folder in which a file names them.
        ignore_index: A value, beside 255, for pixels of no class.
        on_bad: What becomes of images and masks that cannot be used.
    """
    images, masks = twins
    places = (data, images.parent, masks)
    place = next((each for each in places if any((each / name).is_file() for name in FILES)), data)
    labels = with_classes(read_labels(place, ignore_index), classes, data)
    return checked(pairs(images, masks, labels, on_bad), images.parent)


def pairs(images: Path, masks: Path, labels: Labels, on_bad: OnBadData) -> Masks:
    """Every image with its mask."""
    by_stem = _by_stem(images, lambda path: path.suffix.lower() in EXTENSIONS)
    masks_by_stem = _by_stem(masks, lambda path: path.suffix.lower() in LOSSLESS)
    for ending in ENDINGS:
        masks_by_stem = {stem.removesuffix(ending): path for stem, path in masks_by_stem.items()} | masks_by_stem
    without = sorted(by_stem.keys() - masks_by_stem.keys())
    stems = sorted(by_stem.keys() & masks_by_stem.keys())
    if not by_stem:
        raise no_image_in(images)
    problems = [without_mask(by_stem[stem], Path(f"{masks / stem}.png")) for stem in without]
    notes = left_out(problems, on_bad, of=images.parent, some_left=bool(stems))
    lost = len(set(masks_by_stem.values())) - len(stems)
    notes += [f"{images.parent}: {lost} masks have no image"] * bool(lost)
    return Masks(
        [by_stem[stem] for stem in stems],
        [masks_by_stem[stem] for stem in stems],
        labels,
        notes,
        origin=f"of {images} with the masks of {masks}",
        on_bad=on_bad,
    )


def _by_stem(folder: Path, wanted: Callable[[Path], bool]) -> dict[str, Path]:
    """Files by their path below the folder, without the ending."""
    found: dict[str, Path] = {}
    for path in filter(wanted, files_below(folder)):
        stem = str(path.relative_to(folder).with_suffix(""))
        if stem in found:
            raise ValueError(f"{found[stem]} and {path} have one stem, so they would share a mask")
        found[stem] = path
    return found
