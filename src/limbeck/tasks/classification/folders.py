"""Labelled images in a folder for each class, and unlabelled ones in any folder."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from limbeck.data.images import EXTENSIONS, no_image_in
from limbeck.data.index import sizes_of
from limbeck.data.parts import KNOWN, Part, Source, files_below, folders_in, parts_in, resembles_part
from limbeck.data.problems import OnBadData, Problem, first_few, left_out
from limbeck.tasks.classification.dataset import UNLABELLED, Images

OF_SEGMENTERS = {"image", "images", "imgs", "mask", "masks", "annotations"}  # and no names of classes, if all are


def find_folders(folder: Path, on_bad: OnBadData) -> dict[Part, Source[Images]]:
    """The parts of a folder, or all of it as the training images where it has none.

    Raises:
        ValueError: A folder looks like a part but is not known as one, or like a class beside parts.
    """
    parts = parts_in(folder)
    others = [each.name for each in folders_in(folder) if each not in parts.values()]
    if len(parts) == 1 and others:
        known = next(iter(parts.values())).name
        raise ValueError(
            f"{folder} holds {known}, a part, beside {', '.join(others[:5])}: if these are parts too, known names are "
            f"{KNOWN}; if they are classes, and so is {known}, move them all into train/"
        )
    if unknown := [name for name in others if not parts and _is_like_a_part(folder / name)]:
        raise ValueError(
            f"{folder} holds {', '.join(unknown[:5])}, which look like parts, not classes; known names of parts are "
            f"{KNOWN}; or name two folders of classes with --data and --val-data"
        )
    if divided := [name for name in others if not parts and len(parts_in(folder / name)) > 1]:
        below = ", ".join(part.name for part in parts_in(folder / divided[0]).values())
        raise ValueError(
            f"{folder / divided[0]} holds {below}: if that is the data set, pass --data {folder / divided[0]}; if each "
            "class has parts of its own, move them above the classes, as train/CLASS/ and test/CLASS/"
        )
    found = parts or {"train": folder}
    return {part: partial(read_folder, place, on_bad=on_bad) for part, place in found.items()}


def _is_like_a_part(folder: Path) -> bool:
    """By its name, and since no image lies in it but in folders below."""
    if not resembles_part(folder.name) or not folders_in(folder):
        return False
    return not any(path.suffix.lower() in EXTENSIONS for path in folder.iterdir())


def read_folder(folder: Path, classes: list[str] | None = None, *, on_bad: OnBadData = "error") -> Images:
    """Images of ``folder/CLASS/**``, labelled by the class folder's place in alphabetical order.

    Args:
        folder: With a folder for each class.
        classes: Those that there may be, where they are known; some may have no folder here.
        on_bad: What becomes of images that cannot be decoded.
    """
    named = [each.name for each in folders_in(folder)]
    if not named:
        raise ValueError(f"{folder} has no class folders; it should hold CLASS/IMAGE.jpg for every class")
    if len(named) == 2 and {name.lower() for name in named} <= OF_SEGMENTERS:
        raise ValueError(
            f"{folder} holds {' and '.join(named)}, no classes: images with their masks are for limbeck train semantic"
        )
    known = named if classes is None else classes
    if unknown := [name for name in named if name not in known]:
        raise ValueError(f"{folder} has folders that are no classes of the training images: {', '.join(unknown[:5])}")
    items: list[Path] = []
    labels: list[int] = []
    others: list[str] = []
    for name in named:
        files = files_below(folder / name)
        chosen = [path for path in files if path.suffix.lower() in EXTENSIONS]
        if not chosen:
            raise ValueError(f"class folder {no_image_in(folder / name)}; fill or remove it")
        others += [path.suffix for path in files if path.suffix.lower() not in EXTENSIONS]
        items += chosen
        labels += [known.index(name)] * len(chosen)
    endings = first_few(sorted(set(others) - {""})) or "none"
    notes = [f"{folder}: left out {len(others)} files that are no images by their ending ({endings})"] * bool(others)
    beside = sum(path.suffix.lower() in EXTENSIONS for path in folder.iterdir())
    notes += [f"{folder}: {beside} images lie in no class folder, and are left out"] * bool(beside)
    images = sound(Images(items, labels, known, notes, f"in the class folders of {folder}", on_bad), folder)
    if empty := sorted({known.index(name) for name in named} - set(images.labels)):
        raise ValueError(f"class folder {folder / known[empty[0]]} holds no readable image; fill or remove it")
    return images


def read_unlabelled(folder: Path, classes: list[str], *, on_bad: OnBadData = "error") -> Images:
    """Every image below a folder, without labels."""
    if not folder.is_dir():
        raise ValueError(f"no folder {folder} of unlabelled images")
    files = [path for path in files_below(folder) if path.suffix.lower() in EXTENSIONS]
    if not files:
        raise no_image_in(folder)
    return sound(Images(files, [UNLABELLED] * len(files), classes, [], f"of {folder}", on_bad), folder)


def sound(images: Images, folder: Path) -> Images:
    """The images that can be decoded; ``ValueError`` where others are not to be left out."""
    files = [item for item in images.items if isinstance(item, Path)]
    sizes = sizes_of(files, folder)
    problems = [Problem("unreadable images", size) for size in sizes if isinstance(size, str)]
    kept = [index for index, size in enumerate(sizes) if not isinstance(size, str)]
    images.notes.extend(left_out(problems, images.on_bad, of=folder, some_left=bool(kept)))
    return images.take(kept)
