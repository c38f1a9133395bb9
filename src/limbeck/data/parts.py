"""Files below a folder, and which of its folders are the parts of a data set."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from torch import Tensor

Part = Literal["train", "val", "test"]
HeldOut = Literal["val", "test"]
NAMES: dict[Part, tuple[str, ...]] = {
    "train": ("train", "training", "train2017"),
    "val": ("val", "valid", "validation", "val2017"),
    "test": ("test", "testing", "test2017"),
}
RESEMBLES = re.compile(
    r"(?:^|[^a-z])(?:train|trn|val|valid|validation|test|tst|dev|eval|hold.?out|fold|split)(?:ing)?(?:set|data|images|imgs|split)?"
    r"(?:$|[^a-z])",
    re.I,
)
KNOWN = "train/ (training/), val/ (valid/, validation/) and test/ (testing/), in small or capital letters"


def part_named(name: str) -> Part | None:
    """The part that is called so, if one is."""
    return next((part for part, names in NAMES.items() if name.lower() in names), None)


def parts_in(folder: Path) -> dict[Part, Path]:
    """The folders that are parts by their names.

    Raises:
        ValueError: Two are called as one part.
    """
    found: dict[Part, Path] = {}
    for each in folders_in(folder):
        if part := part_named(each.name):
            if part in found:
                raise ValueError(
                    f"{found[part]} and {each} are both the {part} images by their names; keep one of them"
                )
            found[part] = each
    return found


def resembles_part(name: str) -> bool:
    """Whether a folder's name has the word for a part in it, such as ``seg_train`` or ``Test-images``."""
    return bool(RESEMBLES.search(name))


def refuse_unknown(found: Collection[Part], others: Sequence[Path]) -> None:
    """Refuse what may be a part by another name, where no part is held out.

    Raises:
        ValueError: There is some.
    """
    if others and len(found) < 2:
        raise ValueError(
            f"{others[0]} is of no part that is known; known names are {KNOWN}; or name two places with --data and "
            "--val-data"
        )


def is_hidden(name: str) -> bool:
    """Whether a name is of what file managers and notebooks leave, such as ``.ipynb_checkpoints``."""
    return name.startswith(".") or name == "__MACOSX"


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder, but for hidden ones, by name."""
    with os.scandir(folder) as entries:  # which tells folders without a look at each file
        return sorted(Path(entry.path) for entry in entries if entry.is_dir() and not is_hidden(entry.name))


def files_below(folder: Path) -> list[Path]:
    """Every file below a folder by its path, links to folders followed, but for what is hidden."""
    return [Path(path) for path in sorted(_walk(str(folder), frozenset()), key=lambda path: path.split(os.sep))]


def _walk(folder: str, above: frozenset[str]) -> Iterator[str]:
    real = os.path.realpath(folder)
    if real in above:  # a link to a folder that it lies in
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_hidden(entry.name):
                continue
            if entry.is_dir():
                yield from _walk(entry.path, above | {real})
            elif entry.is_file() or not os.path.exists(entry.path):  # a link to nothing is told of when it is read
                yield entry.path


class Samples(Protocol):
    """Images and what is known of them."""

    @property
    def classes(self) -> list[str]: ...

    @property
    def origin(self) -> str: ...

    def __len__(self) -> int: ...

    def facts(self) -> Iterator[Path | Tensor | str]:
        """What tells them from others."""


S = TypeVar("S", bound=Samples)
Source = Callable[[list[str] | None], S]  # reads a part; given the classes of the training images, they are to be these
FindSources = Callable[[Path], Mapping[Part, Source[S]]]  # of what lies in a folder as one piece, train alone


def load_parts(
    data: Path, val_data: Path | None, split: HeldOut | None, find: FindSources[S], divide: Callable[[S], tuple[S, S]]
) -> tuple[S, S]:
    """Training and validation images.

    Args:
        data: Where the training images are.
        val_data: Where the others are, if not there too.
        split: The part that is measured on; by default val, or else test.
        find: Gives what can be read of a folder or file.
        divide: Splits training images where no others are held out.

    Raises:
        ValueError: A part is not there, or has other classes.
    """
    sources = find(data)
    if "train" not in sources:
        raise ValueError(f"{data} has no training images, only {', '.join(sources)}; known names are {KNOWN}")
    source = _held_out(sources, split, data) if val_data is None else _all_of(val_data, split, find)
    train = sources["train"](None)
    return divide(train) if source is None else (train, source(train.classes))


def load_held_out(
    data: Path,
    val_data: Path | None,
    split: HeldOut | None,
    find: FindSources[S],
    divide: Callable[[S], tuple[S, S]],
    classes: list[str],
) -> S:
    """The images alone that a model of these classes is measured on, as ``load_parts`` finds them.

    No training images need to be there.
    """
    if val_data is not None:
        return _all_of(val_data, split, find)(classes)
    sources = find(data)
    source = _held_out(sources, split, data)
    return divide(sources["train"](classes))[1] if source is None else source(classes)


def _all_of(val_data: Path, split: HeldOut | None, find: FindSources[S]) -> Source[S]:
    """What is held out in a place of validation images, or else all that is there."""
    sources = find(val_data)
    return _held_out(sources, split, val_data) or sources["train"]


def _held_out(sources: Mapping[Part, Source[S]], split: HeldOut | None, where: Path) -> Source[S] | None:
    """What is measured on: the part that is asked for, else val, else test, else none of them."""
    if split is not None and split not in sources:
        raise ValueError(f"{where} has no {split} images; it has {', '.join(sources)}")
    order: Sequence[Part] = (split,) if split is not None else ("val", "test")
    return next((sources[part] for part in order if part in sources), None)


def summary(train: Samples, val: Samples) -> list[str]:
    """What a run says of its data at its start."""
    names = ", ".join(train.classes[:5]) + (", ..." if len(train.classes) > 5 else "")
    files = ({fact for fact in part.facts() if isinstance(fact, Path)} for part in (train, val))
    both = len(set.intersection(*files))
    leak = f"training and validation have {both} files in common: what is measured on these says nothing of new images"
    return [
        f"classes: {len(train.classes)} ({names})",
        f"training: {len(train)} images, {train.origin}",
        f"validation: {len(val)} images, {val.origin}",
        *([leak] * bool(both)),
    ]
