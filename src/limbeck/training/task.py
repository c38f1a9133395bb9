"""What a batch means: the verbs that the train loop calls."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from torch import Tensor, nn

from limbeck.core.modules import Example


class Task(Protocol):
    """What a batch means to student, teacher and metrics."""

    metric: str  # the name, among those that evaluate gives, by which the best student is chosen; higher is better

    def inputs(self, batch: Any) -> Example:
        """What to call the student with."""

    def teacher_inputs(self, batch: Any) -> Example | None:
        """What to call the teacher with; ``None`` where that is what the student is called with, or there is none."""

    def truth(self, batch: Any) -> Any:
        """What criteria that need the ground truth get."""

    def loss(self, output: Any, batch: Any) -> Tensor:
        """The student's own loss."""

    def evaluate(self, model: nn.Module, loader: Iterable[Any]) -> dict[str, float]:
        """Metrics of a student, over all processes."""

    def evaluate_teacher(self, model: nn.Module, loader: Iterable[Any]) -> dict[str, float]:
        """Metrics of the teacher; afterwards ``evaluate`` tells the agreement with it."""

    def check_teacher(self, metrics: dict[str, float]) -> None:
        """Raise where a teacher with these metrics is no better than chance."""
