"""Start a student from its teacher's neck and heads."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def inherit(student: nn.Module, teacher: nn.Module) -> list[str]:
    """Start a detector's neck and heads from the teacher's, wherever names and shapes agree.

    Args:
        student: Whose weights are changed, but for its ``backbone.body``.
        teacher: Whose weights are taken.

    Returns:
        The names of the student's tensors that have no counterpart, and stay as they were.

    Raises:
        ValueError: None has one.
    """
    source = teacher.state_dict()
    own = {name: value for name, value in student.state_dict().items() if not name.startswith("backbone.body.")}
    mismatched = {name for name, value in own.items() if name not in source or source[name].shape != value.shape}
    mismatched_modules = {name.rpartition(".")[0] for name in mismatched}  # a bias is nothing without its weight
    inherited = {name for name in own if name.rpartition(".")[0] not in mismatched_modules}
    if not any(own[name].ndim > 1 for name in inherited):
        raise ValueError(
            f"no layer of {type(student).__name__}'s neck or heads has the shape of the teacher's; leave --inherit out"
        )
    for name in inherited:
        own[name].copy_(source[name])
    return sorted(own.keys() - inherited)
