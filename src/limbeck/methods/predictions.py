"""Matches of what detectors predict, which are read at one place and compared by one criterion."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from limbeck.core.capture import Layer
from limbeck.core.criterion import Criterion
from limbeck.core.match import Match, Weight
from limbeck.methods.levels import common_strides
from limbeck.methods.method import Reads
from limbeck.models.model import Model

Layers = Sequence[Layer]
PREDICTIONS: dict[Reads, str] = {
    "head": "the head of a RetinaNet or FCOS of torchvision",
    "queries": "the queries of a transformer of the DETR family (hf:FOLDER)",
}


def match_predictions(
    method: str,
    reads: Reads,
    make: Callable[..., Criterion],
    student: Model,
    teacher: Model,
    strides: Collection[int],
    weight: Weight,
) -> Match:
    """The match of a method that compares predictions.

    Raises:
        ValueError: One of the models predicts in another way.
    """
    name = method.partition(":")[0]
    for role, model in (("student", student), ("teacher", teacher)):
        if (model.head if reads == "head" else model.queries) is None:
            raise ValueError(
                f"{name} compares what is predicted by {PREDICTIONS[reads]}, which the {role}, a "
                f"{type(model.module).__name__}, does not have; ChannelTransform, CWD, FGD, MGD and PKD compare the "
                "features of any two models"
            )
    match = _of_heads if reads == "head" else _of_queries
    of_student, of_teacher, criterion = match(name, make, student, teacher, strides)
    return Match(of_student, of_teacher, criterion, weight=weight, name=name)


def _of_heads(
    name: str, make: Callable[..., Criterion], student: Model, teacher: Model, strides: Collection[int]
) -> tuple[Layers, Layers, Criterion]:
    assert student.head is not None
    assert teacher.head is not None
    common = common_strides(student, teacher, strides)
    of_student, of_teacher = (
        [layer for stride in common for layer in head.layers[stride]] for head in (student.head, teacher.head)
    )
    return of_student, of_teacher, make(rest=teacher.head.rest)


def _of_queries(
    name: str, make: Callable[..., Criterion], student: Model, teacher: Model, strides: Collection[int]
) -> tuple[Layers, Layers, Criterion]:
    from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

    of_student, of_teacher = student.queries, teacher.queries
    assert of_student is not None
    assert of_teacher is not None
    if strides:
        raise ValueError(f"{name} compares queries, which are of no level: leave out --strides")
    if of_student.softmax != of_teacher.softmax:
        kinds = {True: "one class or none (a softmax)", False: "each class by itself (sigmoids)"}
        raise ValueError(
            f"{name} compares scores of one kind; the student's queries say {kinds[of_student.softmax]}, the teacher's "
            f"{kinds[of_teacher.softmax]}; ChannelTransform, CWD, FGD, MGD and PKD compare features"
        )
    return of_student.layers, of_teacher.layers, make(assign=linear_sum_assignment, softmax=of_student.softmax)


def refuse_options(method: str, **options: Any) -> None:
    """Refuse what says otherwise where, or how, predictions are read."""
    for option, given in options.items():
        if given:
            raise ValueError(
                f"{method} compares predictions, which are where they are: leave out what you said of {option}"
            )
