"""Is it really distilling? Look at every match on real data before a run starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from limbeck.core.capture import Layer
from limbeck.core.criterion import Feature
from limbeck.core.distiller import Distiller
from limbeck.core.features import Features, first_of, gather
from limbeck.core.match import Match
from limbeck.core.modules import Example, evaluating
from limbeck.training.advice import advise_on_grids

MOST_LAYERS = 6  # of a match, that are all described


@dataclass(frozen=True)
class Row:
    """A match as it is shown before a run starts."""

    match: str
    student: str
    teacher: str
    grid: str  # how the student's map comes to the teacher's grid
    parameters: int  # of projector and criterion
    weight: str
    value: float  # of the criterion, not weighted
    advice: tuple[str, ...] = ()  # where there is too little to learn from

    def __str__(self) -> str:
        resized = "" if self.grid == "same" else f", the map resized from {self.grid}"
        trained = f", {self.parameters:,} weights of its own" if self.parameters else ""
        follows = f"{self.match}: {self.student} follows {self.teacher}{resized}"
        lines = [follows, f"weight {self.weight}{trained}, now {self.value:.4g}", *self.advice]
        return "\n    ".join(lines)


def preflight(
    distiller: Distiller, inputs: Example, *, truth: Any = None, teacher_inputs: Example | None = None
) -> list[Row]:
    """Run one batch forwards and backwards in eval mode; gradients, buffers and modes are as before afterwards.

    Raises:
        ValueError: A criterion is not finite or is 0, or, but for one with a weight of 0, brings no gradient to the
            student's feature or to a weight of its own or of its projector.
    """
    with evaluating(distiller), torch.enable_grad():
        student, teacher = distiller.features(inputs, teacher_inputs)
        return [_describe_match(match, student, teacher, truth) for match in distiller.matches]


def _describe_match(match: Match, student: Features, teacher: Features, truth: Any) -> Row:
    features, target = gather(student, match.student), gather(teacher, match.teacher)
    value = match(features, target, truth)
    number = value.item()
    if not torch.isfinite(value):
        raise ValueError(f"{match} is {number} on the first batch; check the teacher's weights and inputs")
    if number == 0:
        raise ValueError(
            f"{match} is exactly 0 on the first batch, so it teaches nothing; are these the layers you mean (a map of "
            "one position may say nothing), and does the teacher know these images?"
        )
    weights = {name: weight for name, weight in match.named_parameters() if weight.requires_grad}
    if match.constant != 0:  # else somebody only wants to see the value
        _check_gradients(match, value, features if isinstance(features, tuple) else (features,), weights)
    weight = "auto" if match.measuring else f"{match.weight:.4g}" if match.schedule is None else str(match.schedule)
    return Row(
        str(match),
        _describe(match.student, features),
        _describe(match.teacher, target),
        _grid(features, target),
        sum(parameter.numel() for parameter in weights.values()),
        weight,
        number,
        advise_on_grids(features, target),
    )


def _check_gradients(match: Match, value: Tensor, features: Sequence[Tensor], weights: Mapping[str, Tensor]) -> None:
    """Refuse a match from which a layer of the student, or a weight of its own, learns nothing."""
    if not all(feature.requires_grad for feature in features):
        raise ValueError(f"{match}: the student's feature has no gradient; is that part of the student frozen?")
    if not value.requires_grad:  # unlike for the example, on which it was 0
        raise ValueError(
            f"{match} gives no gradient to {match.student[0]}; does the criterion detach what it is given?"
        )
    gradients = torch.autograd.grad(value, [*features, *weights.values()], allow_unused=True)
    # Behind a layer or norm that starts at zero, as some do on purpose, gradients are zero at first, but not absent.
    starts_at_zero = any(
        (weight.ndim > 1 or name.endswith("weight")) and not weight.any() for name, weight in weights.items()
    )
    # Of a module that runs several times, one run may have nothing to say, as a level of one position.
    names = [str(replace(layer, run=None)) for layer in match.student]
    reached: dict[str, bool] = {}
    for name, gradient in zip([*names, *weights], gradients, strict=True):
        learns = gradient is not None and bool(gradient.any() or (starts_at_zero and name in weights))
        reached[name] = learns or reached.get(name, False)
    for name, learns in reached.items():
        if not learns:
            raise ValueError(f"{match} gives no gradient to {name}, so that would never learn")


def _describe(layers: tuple[Layer, ...], features: Feature) -> str:
    shapes = [tuple(f.shape[1:]) for f in (features if isinstance(features, tuple) else (features,))]
    descriptions = [f"{layer} {shape}" for layer, shape in zip(layers, shapes, strict=True)]
    if len(descriptions) > MOST_LAYERS:
        descriptions[2:-1] = [f"... ({len(descriptions)} in all)"]
    return ", ".join(descriptions)


def _grid(student: Feature, teacher: Feature) -> str:
    shapes = [first_of(feature).shape for feature in (student, teacher)]
    if any(len(shape) != 4 for shape in shapes) or shapes[0][2:] == shapes[1][2:]:
        return "same"
    return " to ".join(f"{height}x{width}" for *_, height, width in shapes)
