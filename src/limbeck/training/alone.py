"""A student without a teacher, trained by the loop that trains distilled ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from limbeck.core.distiller import Distilled
from limbeck.core.match import Match


class Alone(nn.Module):
    """A student that follows nobody: called as a ``Distiller`` is, it gives the student's output and no losses."""

    matches: Sequence[Match] = ()

    def __init__(self, student: nn.Module):
        super().__init__()
        self.student = student

    def forward(self, *args: Any, truth: Any = None, teacher_inputs: Any = None, **kwargs: Any) -> Distilled:
        return Distilled(self.student(*args, **kwargs), {})

    def set_progress(self, progress: float) -> None:
        """Nothing here changes with progress."""
