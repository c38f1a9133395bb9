"""From a name to a model: the one place where sources such as ``timm:``, files and runs are told apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from limbeck.compress.forms import rebuild
from limbeck.models.checkpoints import load_weights
from limbeck.models.files import file_and_name
from limbeck.models.model import Model
from limbeck.models.run_folder import RunFolder, read_card

FILE, RUN = "FILE.py", "RUN"  # what is no word before a colon


@dataclass(frozen=True)
class Source:
    """Where models come from, such as timm.

    Args:
        form: How a name is written, such as ``timm:NAME``.
        build: Makes a model from what stands behind the colon (of a file: all of it), the names of its classes, and an
            image size in pixels or ``None`` for its own.
        knows: Whether it has a model of this name, for models of this kind.
    """

    form: str
    build: Callable[[str, list[str], int | None], Model]
    knows: Callable[[str], bool] = lambda name: True


class BuildModel(Protocol):
    """Makes a model of a task from its name, the names of the classes, and an image size or ``None``."""

    def __call__(self, name: str, classes: list[str], size: int | None = None) -> Model: ...


Sources = Mapping[str, Source]  # by the word before the colon, or FILE


def build(name: str, classes: list[str], sources: Sources, *, tasks: Collection[str], size: int | None = None) -> Model:
    """A model by name; without trained weights, but for a run folder.

    Args:
        name: In one of the forms of the sources, or a run folder, or the file of a student in one, which bring weights.
        classes: Names of the classes, in the order of the outputs; of a run, none takes its own.
        sources: Where models of this kind come from.
        tasks: Of which a run's student may be.
        size: Image size in pixels, where the model has one; ``None`` takes its own.

    Raises:
        ValueError: There is no such model, or a run is of another task or knows other classes.
    """
    source, rest = source_of(name)
    if source == RUN:
        return _from_run(student_file(name), classes, sources, tasks=tasks, size=size)
    if source not in sources:
        forms = ", ".join(each.form for each in sources.values())
        known = [f"{word}:{name}" for word, each in sources.items() if word != FILE and each.knows(name)]
        hint = f"; did you mean {' or '.join(known)}?" if known else _of_a_path(Path(name))
        raise ValueError(
            f"no model {name!r} for {'/'.join(tasks)}: write {forms}, or the folder of a finished run{hint}"
        )
    return sources[source].build(rest, classes, size)


def _of_a_path(path: Path) -> str:
    """What is to be said of a file or folder that is no model; nothing of other names."""
    if path.is_file():
        return "; a file of weights goes beside the model's name, as --weights, --teacher-weights or --student-weights"
    is_path = len(path.parts) > 1 and ":" not in str(path)
    return f"; there is no folder {path}" if is_path and not path.exists() else ""


def source_of(name: str) -> tuple[str, str]:
    """Where a name says that its model comes from, and what it is called there; a run's is a folder or a file in it.

    >>> source_of("timm:resnet50"), source_of("C:/nets/mine.py:small")
    (('timm', 'resnet50'), ('FILE.py', 'C:/nets/mine.py:small'))
    """
    if file_and_name(name)[0]:
        return FILE, name
    if RunFolder(Path(name)).has_student() or name.endswith(".safetensors"):
        return RUN, name
    if name.endswith(".py"):  # its functions are listed
        return FILE, f"{name}:"
    source, _, rest = name.partition(":")
    return source, rest


def student_file(run: str) -> Path:
    """Where tensors and card of a run's student are, by the name of its folder or of the file itself."""
    return path if (path := Path(run)).suffix == ".safetensors" else RunFolder(path).student


def _from_run(
    student: Path, classes: list[str], sources: Sources, *, tasks: Collection[str], size: int | None
) -> Model:
    card = read_card(student)
    if card["task"] not in tasks:
        raise ValueError(f"{student.parent} is a run of {card['task']}, not of {'/'.join(tasks)}")
    check_classes(str(student.parent), card["classes"], classes)
    model = build(card["model"], card["classes"], sources, tasks=tasks, size=size or card["size"])
    rebuild(model.module, card.get("compressed", {}))
    load_weights(model.module, str(student))
    model.mark_loaded()
    mean, std = tuple(card["mean"]), tuple(card["std"])
    return dataclasses.replace(model, inputs=dataclasses.replace(model.inputs, mean=mean, std=std), card=card)


def check_classes(what: str, known: list[str], classes: list[str]) -> None:
    """Classes by other names, or in another order, would pass unnoticed."""
    if classes and known != classes:
        raise ValueError(f"{what} knows the classes {known[:5]}..., the data has {classes[:5]}...")
