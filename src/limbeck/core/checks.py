"""What is refused, in words: arguments that cannot be meant, and features that cannot be compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from inspect import signature
from numbers import Real
from typing import Any

from torch import Tensor, nn

from limbeck.core.capture import Layer

AWAY = (
    "below 0 the student would be driven away from its teacher; where a criterion is to grow, as a similarity, pass "
    "lambda student, teacher: -similarity(student, teacher)"
)


def check_criterion(criterion: Any) -> None:
    """Refuse what is not called with two features."""
    if isinstance(criterion, type):
        raise TypeError(f"criterion is the class {criterion.__name__}; pass one of it, {criterion.__name__}()")
    if not callable(criterion):
        raise TypeError(
            f"criterion is {criterion!r}; it is called with the two features, as nn.MSELoss() or ChannelTransform() is"
        )


def check_projector(projector: Any) -> None:
    """Refuse what does not build a projector."""
    if isinstance(projector, nn.Module) or not (projector is None or callable(projector)):
        raise TypeError(
            f"projector is {projector!r}; it is a function of one example of each feature that builds one, as conv1x1 "
            "is; for a module of your own pass lambda student, teacher: module"
        )


def check_built(projector: Any, make: Any) -> nn.Module:
    """What built a projector has to give."""
    if not isinstance(projector, nn.Module):
        raise TypeError(f"projector {make!r:.60} gives a {type(projector).__name__}, not an nn.Module; return a module")
    return projector


def check_weight(weight: Any) -> None:
    """Refuse what is no number of 0 or more, no function and not ``"auto"``."""
    number = isinstance(weight, Real) and not isinstance(weight, bool)
    if not (number or callable(weight) or (isinstance(weight, str) and weight == "auto")):
        raise ValueError(f"weight is {weight!r}; it is a number, 'auto', or a function of progress in [0, 1]")
    if number and not math.isfinite(weight):
        raise ValueError(f"weight is {weight!r}; it has to be finite")
    if number and weight < 0:
        raise ValueError(f"weight is {weight!r}; {AWAY}")


def check_models(student: nn.Module, teacher: nn.Module) -> None:
    """Refuse two models that cannot be a student and a teacher, before anything is done to them."""
    for role, model in (("student", student), ("teacher", teacher)):
        if not isinstance(model, nn.Module):
            raise TypeError(f"the {role} is {model!r:.60}, and has to be an nn.Module")
    tensors = [{id(tensor) for tensor in (*model.parameters(), *model.buffers())} for model in (student, teacher)]
    if tensors[0] & tensors[1]:
        raise ValueError("student and teacher share weights or buffers; pass copy.deepcopy(teacher)")
    for role, model in (("student", student), ("teacher", teacher)):
        if any(weight.is_meta for weight in model.parameters()):
            raise ValueError(
                f"the {role} has weights on the meta device, but the example has to run; give it real ones first: "
                f"{role}.to_empty(device=...), then {role}.load_state_dict(...)"
            )
    if reserved := {"truth", "teacher_inputs"} & signature(student.forward).parameters.keys():
        raise ValueError(
            f"the student has arguments of its own called {sorted(reserved)}, which the Distiller keeps for itself; "
            "wrap it in a module whose arguments have other names"
        )


def check_prepared(prepared: Sequence[Layer], wanted: Sequence[Layer]) -> None:
    """Refuse a prepared teacher that does not give a layer."""
    if missing := [str(layer) for layer in dict.fromkeys(wanted) if layer not in prepared]:
        raise ValueError(f"the teacher was not prepared for {missing}; name them in prepare_teacher(..., layers)")


def check_numbers(role: str, features: dict[Layer, Tensor]) -> None:
    """Refuse a model that gives nan for the example."""
    for layer, feature in features.items():
        if feature.isnan().any():
            raise ValueError(
                f"the {role}'s feature at {layer} is nan for the example: its weights are broken, or the example holds "
                "no numbers"
            )


def check_gradients(features: dict[Layer, Tensor]) -> None:
    """Refuse a feature of the student that no gradient leaves, in training."""
    for layer, feature in features.items():
        if not feature.requires_grad:
            raise RuntimeError(
                f"the student's feature at {layer} has no gradient, so the student would learn nothing there: match a "
                "layer that is trained, read it without detach(), and call checkpoint(..., use_reentrant=False)"
            )


def check_batch(match: object, student: Tensor, teacher: Tensor) -> None:
    """Refuse features of no images, or of a different number."""
    if 0 in student.shape[:1]:
        raise ValueError(f"{match}: the batch is empty, so there is nothing to compare; skip it")
    if student.shape[:1] != teacher.shape[:1]:
        raise ValueError(
            f"{match}: the student's feature {tuple(student.shape)} and the teacher's {tuple(teacher.shape)} are not "
            "of one batch size; give both models the same images, as many in teacher_inputs"
        )


def check_shapes(
    student_layer: str, student: Tensor, teacher_layer: str, teacher: Tensor, projector: nn.Module | None
) -> None:
    """Refuse features of two shapes, for a criterion that compares them element by element."""
    if student.shape == teacher.shape:
        return
    channel = 1 if student.ndim > 3 else -1
    if student.ndim != teacher.ndim:
        remedy = "read both as maps, for example Layer(path, read=tokens_to_map(prefix=1))"
    elif student.select(channel, 0).shape != teacher.select(channel, 0).shape:
        remedy = "they have other positions: read tokens as maps, for example Layer(path, read=tokens_to_map(prefix=1))"
    elif projector is None:
        remedy = "for other channels pass projector=conv1x1, or any_shape = True as an attribute of the criterion"
    else:
        remedy = "the projector has to give as many channels as the teacher has"
    through = "" if projector is None else " through the projector"
    raise ValueError(
        f"student {student_layer}{through} gives {tuple(student.shape)}, "
        f"teacher {teacher_layer} gives {tuple(teacher.shape)}; {remedy}"
    )
