"""What a Distiller does once, when it is made: build its matches, and leave the models as they were if that fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from limbeck.core.criterion import Feature
from limbeck.core.match import Match
from limbeck.core.modules import evaluating


def build_match(match: Match, student: Feature, teacher: Feature, truth: Any) -> None:
    """Build a match, and see that its criterion gives a scalar."""
    needs = match.declared.needs_truth
    if needs and truth is None:
        what = f" ({needs})" if isinstance(needs, str) else ""
        raise ValueError(f"{match} needs the ground truth{what}: pass truth=... here and in each call")
    before = _versions(student, teacher)
    try:
        match.build(student, teacher)
        with evaluating(match):  # what was just built too
            value = match(student, teacher, truth)
    except (AttributeError, TypeError) as error:
        if len(match.student) == len(match.teacher) == 1:
            raise
        raise TypeError(
            f"{match} gives its criterion tuples of features, of {len(match.student)} and {len(match.teacher)} layers, "
            f"which it does not take ({error}); pass Match(layer, layer, criterion) for each pair of layers"
        ) from error
    if _versions(student, teacher) != before:
        raise ValueError(
            f"the criterion of {match} changes a feature in place, which others go on with; let it "
            "make a tensor of its own, as feature - mean for feature.sub_(mean)"
        )
    if not isinstance(value, Tensor) or value.ndim != 0:
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"the criterion of {match} gives {shape}, not a scalar tensor; reduce it, as .mean()")
    match.set_pace(student, teacher, truth)


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
            buffer.copy_(value)
