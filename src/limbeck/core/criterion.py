"""What a criterion is, and what it may say of itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import Any
from weakref import WeakSet

from torch import Tensor, nn

Feature = Tensor | tuple[Tensor, ...]  # of one layer, or of several
Criterion = Callable[..., Tensor]  # (student, teacher) -> scalar; nn.MSELoss() is one


_TAKEN: WeakSet[nn.Module] = WeakSet()


@dataclass(frozen=True)
class Declared:
    """What a criterion declares by attributes of these names, and what holds where it has none.

    A criterion has no base class: any callable of (student, teacher) that gives a scalar is one. One with weights is an
    ``nn.Module`` with a method ``build(student, teacher)``, called once with example features, which makes them.
    """

    build: Callable[..., None] | None = None  # (student, teacher): features as the criterion takes them
    needs_truth: bool | str = False  # it is called with truth as third argument; may say in words what that is
    any_shape: bool = False  # its features need not have one shape
    project: Callable[[Tensor], Tensor] | None = None  # where it maps the student's feature itself: that map
    mixed_precision: bool = False  # it takes features in low precision and mixes precisions by itself


def declared_by(criterion: Criterion) -> Declared:
    """What a criterion, or a class of them, declares."""
    declared: dict[str, Any] = {each.name: getattr(criterion, each.name, each.default) for each in fields(Declared)}
    return Declared(**declared)


def take(criterion: nn.Module, match: object) -> None:
    """Have a criterion be that of one match; ``ValueError`` where another match has built it already."""
    if criterion in _TAKEN:
        raise ValueError(
            f"the criterion of {match} is that of another match already, which building it anew would undo; "
            f"pass each match its own {name_of(criterion)}()"
        )
    _TAKEN.add(criterion)


def name_of(criterion: Callable[..., Any]) -> str:
    """What a criterion is called in the names of matches and in errors.

    >>> import torch.nn.functional as F
    >>> name_of(F.mse_loss), name_of(partial(F.smooth_l1_loss, beta=2.0)), name_of(declared_by)
    ('mse_loss', 'smooth_l1_loss', 'declared_by')
    """
    if isinstance(criterion, partial):
        return name_of(criterion.func)
    name: str = getattr(criterion, "__name__", type(criterion).__name__)
    return name
