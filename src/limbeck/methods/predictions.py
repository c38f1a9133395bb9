"""Matches of what detectors predict, which are read at one place and compared by one criterion."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from limbeck.core.criterion import Criterion
from limbeck.core.match import Match, Weight
from limbeck.methods.levels import common_strides
from limbeck.methods.table import Reads
from limbeck.models.model import DenseHead, Model

PREDICTIONS: dict[Reads, str] = {"head": "the head of a RetinaNet or FCOS of torchvision"}


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
    common = common_strides(student, teacher, strides) if student.head and teacher.head else []
    of_student, of_teacher = (
        [layer for stride in common for layer in head.layers[stride]]
        for head in (_head(name, student, "student"), _head(name, teacher, "teacher"))
    )
    criterion = make(rest=_head(name, teacher, "teacher").rest)
    return Match(of_student, of_teacher, criterion, weight=weight, name=name)


def _head(name: str, model: Model, role: str) -> DenseHead:
    if model.head is None:
        raise ValueError(
            f"{name} compares what {PREDICTIONS['head']} makes of its maps, which the {role}, a "
            f"{type(model.module).__name__}, does not have; ChannelTransform, CWD, FGD, MGD and PKD compare the "
            "features of any two models"
        )
    return model.head


def refuse_options(method: str, **options: Any) -> None:
    """Refuse what says otherwise where, or how, predictions are read."""
    for option, given in options.items():
        if given:
            raise ValueError(
                f"{method} compares predictions, which are where they are: leave out what you said of {option}"
            )
