"""What a Distiller does once, when it is made: build its matches, and leave the models as they were if that fails."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from limbeck.core.criterion import Feature
from limbeck.core.features import each_of, first_of
from limbeck.core.match import Match
from limbeck.core.modules import evaluating


def build_match(match: Match, student: Feature, teacher: Feature, truth: Any) -> None:
    """Build a match, and see that its criterion gives a scalar, and a gradient to the student."""
    needs = match.declared.needs_truth
    if needs and truth is None:
        what = f" ({needs})" if isinstance(needs, str) else ""
        raise ValueError(f"{match} needs the ground truth{what}: pass truth=... here and in each call")
    marked, mark = _marked(student)
    before = _versions(student, marked, teacher)
    with _telling(match):
        match.build(student, teacher)
        with evaluating(match), torch.enable_grad():  # what was just built too
            value = match(marked, teacher, truth)
    if _versions(student, marked, teacher) != before:
        raise ValueError(
            f"the criterion of {match} changes a feature in place, which others go on with; let it "
            "make a tensor of its own, as feature - mean for feature.sub_(mean)"
        )
    if not isinstance(value, Tensor) or value.ndim != 0:
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"the criterion of {match} gives {shape}, not a scalar tensor; reduce it, as .mean()")
    _check_teaches(match, value, mark)
    match.set_pace(student, teacher, truth)


@contextmanager
def _telling(match: Match) -> Iterator[None]:
    """Name the match whose criterion fails, except where it says by itself what is wrong."""
    try:
        yield
    except ValueError:
        raise
    except (AttributeError, TypeError) as error:
        if len(match.student) == len(match.teacher) == 1:
            error.add_note(
                f"in the criterion of {match}, which is called with two features, and with truth as a third where it "
                "has an attribute needs_truth = True"
            )
            raise
        raise TypeError(
            f"{match} gives its criterion tuples of features, of {len(match.student)} and {len(match.teacher)} layers, "
            f"which it does not take ({error}); pass Match(layer, layer, criterion) for each pair of layers"
        ) from error
    except Exception as error:
        error.add_note(f"in the criterion of {match}, which was called with the example's features")
        raise


def _marked(feature: Feature) -> tuple[Feature, Tensor]:
    """A copy of a feature, and a tensor that gets a gradient if the feature does."""
    mark = torch.zeros((), device=first_of(feature).device, requires_grad=True)
    with torch.enable_grad():
        return each_of(lambda part: part + mark if part.is_floating_point() else part, feature), mark


def _check_teaches(match: Match, value: Tensor, mark: Tensor) -> None:
    """Refuse a criterion whose value, on the example, depends on no feature of the student's that a gradient reaches.

    Args:
        match: Its match. With a weight of 0 it is taken: somebody only wants to see the value.
        value: What the criterion gives.
        mark: What was added to every feature of the student.
    """
    if value.requires_grad and torch.autograd.grad(value, mark, allow_unused=True)[0] is not None:
        return
    if match.constant == 0:
        return
    sentence = (
        f"the criterion of {match} gives no gradient to the student's feature, so that the student would learn nothing "
        "from it: see whether it uses detach(), no_grad(), argmax() or numpy; to look at its value alone pass weight=0"
    )
    if value != 0:
        raise ValueError(sentence)
    warnings.warn(f"for the example, where its value is 0, {sentence}", stacklevel=2)  # maybe there is nothing in it


def _versions(*features: Feature) -> list[int]:
    """How often tensors were changed in place."""
    tensors = [each for feature in features for each in (feature if isinstance(feature, tuple) else (feature,))]
    return [tensor._version for tensor in tensors if not tensor.is_inference()]


def unfreezing(model: nn.Module) -> Callable[[], None]:
    """What gives a model back the modes and the gradients that it has now."""
    modes = {module: module.training for module in model.modules()}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def unfreeze() -> None:
        for parameter in trained:
            parameter.requires_grad_(True)
        for module, training in modes.items():
            module.training = training

    return unfreeze


@contextmanager
def keeping_buffers(model: nn.Module) -> Iterator[None]:
    """Have what a model learns in its buffers undone afterwards, as the statistics of batch norms in training mode."""
    kept = [(buffer, buffer.clone()) for buffer in model.buffers() if not is_lazy(buffer)]
    try:
        yield
    finally:
        for buffer, value in kept:
            if buffer.shape != value.shape:  # an observer of quantisation-aware training has no element at first
                buffer.resize_(value.shape)
            buffer.copy_(value)
