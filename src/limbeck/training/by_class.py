"""What an evaluation finds class by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class ByClass:
    """What an evaluation finds class by class; a task may keep that of its last one as ``by_class``.

    Args:
        measure: What the values are: ``"accuracy"``, ``"iou"`` or ``"ap"``.
        values: In the order of the classes, in [0, 1]; ``None`` for a class that is not there.
        confusion: Counts (K, K) of images or pixels: a row for what is true, a column for what was predicted.
    """

    measure: str
    values: Sequence[float | None]
    confusion: Tensor | None = None

    def named(self, classes: Sequence[str]) -> dict[str, Any]:
        """The values by the names of the classes."""
        return {"measure": self.measure, "values": dict(zip(classes, self.values, strict=True))}

    def entry(self) -> dict[str, Any]:
        """As it is written to a log; of the counts, only those that are not 0: row, column, count."""
        entry: dict[str, Any] = {"measure": self.measure, "values": list(self.values)}
        if self.confusion is not None:
            counts = self.confusion.cpu()
            places = counts.nonzero()
            entry["confusion"] = [[*place, int(counts[tuple(place)])] for place in places.tolist()]
        return entry


def shares(confusion: Tensor) -> list[float | None]:
    """Of each class, the share that was recognised; ``None`` where there is nothing of it."""
    right, every = confusion.diagonal().tolist(), confusion.sum(1).tolist()
    return [number / total if total else None for number, total in zip(right, every, strict=True)]


def found_by(task: Any) -> Mapping[str, Any] | None:
    """What a task's last evaluation found class by class, as it is written down; ``None`` where it does not tell."""
    by_class: ByClass | None = getattr(task, "by_class", None)
    return by_class.entry() if by_class is not None else None
