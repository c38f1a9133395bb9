"""The kinds of task that there are, each in a folder of its own."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from limbeck.models.build import RUN, source_of, student_file
from limbeck.models.run_folder import read_card
from limbeck.tasks.kind import TaskKind

# Where each is defined; imported when it is asked for, since detection takes seconds to import.
TASKS: Mapping[str, str] = {
    "classification": "limbeck.tasks.classification",
    "semantic": "limbeck.tasks.semantic",
    "detection": "limbeck.tasks.detection",
    "instance": "limbeck.tasks.detection.instance",
}


def task_kind(name: str) -> TaskKind:
    """The kind of task of this name."""
    kind: TaskKind = import_module(TASKS[name]).KIND
    return kind


def task_kind_of(model: str) -> TaskKind:
    """The kind of task of a model by its name: what a run was trained for, or the first that knows it.

    Raises:
        ValueError: The name says nowhere where the model comes from.
    """
    if source_of(model)[0] == RUN:
        return task_kind(read_card(student_file(model))["task"])
    source, rest = source_of(model)
    kinds = []
    for name in TASKS:
        if source in (kind := task_kind(name)).sources:
            if kind.sources[source].knows(rest):
                return kind
            kinds.append(kind)
    if kinds:  # where none knows the name, the first says what is nearest
        return kinds[0]
    forms = dict.fromkeys(source.form for name in TASKS for source in task_kind(name).sources.values())
    raise ValueError(f"no model {model!r}: write {', '.join(forms)}, or the folder of a finished run")
