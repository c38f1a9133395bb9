"""What a method is, as command line, docs and benchmarks have it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from limbeck.core.criterion import Criterion
from limbeck.core.match import Weight
from limbeck.core.projectors import MakeProjector

Reads = Literal[
    "output",
    "distillation-head",
    "exits",
    "last-map",
    "embedding",
    "levels",
    "stages",
    "stages-before-activation",
    "stages-together",
    "shallow-and-deep",
    "head",
    "named",
    "queries",
]
FUSED: tuple[Reads, ...] = ("stages-together", "shallow-and-deep")  # several layers that one criterion takes together
OF_SCORES: tuple[Reads, ...] = ("output", "distillation-head", "exits")  # of the teacher, its class scores


@dataclass(frozen=True)
class OnLevels:
    """What a method does otherwise at the levels of a detector's pyramid."""

    options: Mapping[str, Any] = field(default_factory=dict)  # of the criterion
    projector: MakeProjector | None = None  # None: the same as elsewhere


@dataclass(frozen=True)
class Method:
    """A method of the field: a criterion, and what its paper puts around it.

    A weight that is a number is the one published with the method. It belongs to what ``published`` says: by how many
    classes, images or positions a loss is shared out, and the temperature, change its gradient beside the task's.
    """

    criterion: Callable[..., Criterion]
    paper: str  # key in methods.bib
    compares: str
    reads: Reads = "last-map"
    projector: MakeProjector | None = None
    weight: Weight = "auto"
    published: str = ""  # with which classes, batch and temperature the weight that is a number was published
    on_levels: OnLevels = OnLevels()
    takes_vectors: bool = False  # so where a class token alone is classified it reads the embedding, not the last map

    def projector_at(self, reads: Reads) -> MakeProjector | None:
        """The projector where features are read so: none where class scores are compared."""
        if reads in OF_SCORES:
            return None
        return self.on_levels.projector if reads == "levels" and self.on_levels.projector else self.projector
