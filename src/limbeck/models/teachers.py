"""Teachers, which may know other classes than the data has, or none: their features can be followed all the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from limbeck.core.match import Match
from limbeck.models.build import RUN, BuildModel, source_of
from limbeck.models.checkpoints import load_weights
from limbeck.models.model import Model
from limbeck.models.scores import FORMS, check_scores


def build_teacher(build: BuildModel, name: str, classes: list[str], size: int | None = None, *, task: str) -> Model:
    """A teacher by name, with its own classes where they are not those of the data; none where it gives no scores.

    Args:
        build: Makes models of the task.
        name: As ``build`` takes it.
        classes: Of the data.
        size: Image size in pixels; ``None`` for its own.
        task: Of which it is.
    """
    model = build(name, [] if source_of(name)[0] == RUN else classes, size)
    if task in FORMS:
        try:
            check_scores(name, model, task)
        except ValueError as error:
            return replace(model, classes=[], without_scores=str(error))
    return model


def load_teacher(model: Model, source: str, *, name: str) -> None:
    """Load weights into a teacher; where those of its classifier are for other classes, it knows none from then on."""
    if load_weights(model.module, source, name=name, new_head=True):
        model.classes = []


def check_teacher_classes(teacher: Model, classes: list[str], matches: Sequence[Match]) -> list[str]:
    """What the user should read of a teacher that has other classes than the data.

    Raises:
        ValueError: A match reads its class scores, which then say nothing of the data's classes.
    """
    if teacher.classes == classes:
        return []
    own = other_classes(teacher)
    if reading := [match for match in matches if _reads_scores(match, teacher)]:
        raise ValueError(
            f"{reading[0]} compares class scores, but the data has the classes {', '.join(classes[:5])}, and the "
            f"teacher {own}; take a method that compares features, such as ChannelTransform, or a teacher of these "
            "classes"
        )
    return [f"the teacher {own}, so it is not measured; its features are followed"]


def other_classes(teacher: Model) -> str:
    """What a teacher knows that does not know the classes of the data."""
    if teacher.classes:
        return f"knows other classes ({', '.join(teacher.classes[:5])})"
    return "has no scores for the classes" + (f" ({teacher.without_scores})" if teacher.without_scores else "")


def _reads_scores(match: Match, teacher: Model) -> bool:
    """Whether a match compares the teacher's class scores, of its output or of a detector's queries, with others."""
    of_queries = teacher.queries.layers if teacher.queries else ()
    return any(not layer.path or layer in of_queries for layer in match.teacher)
