"""Where methods read a model."""

from __future__ import annotations

from typing import Any, Literal

from limbeck.core.capture import Layer
from limbeck.core.projectors import pooled
from limbeck.methods.method import OF_SCORES, Reads
from limbeck.models.distilled import distillation_head
from limbeck.models.features import before_activation
from limbeck.models.model import Model

DEPTHS = (1 / 6, 1 / 3, 5 / 6, 1.0)  # of a plain transformer's blocks, that OFA-KD takes for its four stages


def layers_of(reads: Reads, model: Model, role: Literal["student", "teacher"]) -> list[Layer]:
    """The layers that are read, from the first to the deepest."""
    if reads == "distillation-head" and role == "student":
        return [distillation_head(model.module)]
    if reads in OF_SCORES:  # beside the exits, of which there are others too
        return [model.output]
    if reads == "last-map":
        return [model.last_map]
    if reads == "embedding":
        return [model.embedding]
    if reads == "stages":
        return [stage.layer for stage in model.stages]
    if reads == "shallow-and-deep":
        return shallow_and_deep(model, role)
    module, used = model.module, model.used
    if reads == "stages-before-activation":
        return [before_activation(module, used, stage) for stage in model.stages]
    # ReviewKD: the student's stages follow the teacher's before their activation; and pooled, as the classifier has it.
    last = model.stages[-1].layer
    each = [stage.layer if role == "student" else before_activation(module, used, stage) for stage in model.stages]
    return [*each, Layer(last.path, pooled(last.read))]


def shallow_and_deep(model: Model, role: str) -> list[Layer]:
    """Patch tokens after the first two blocks of a plain transformer, and the last feature."""
    if len(model.blocks) < 2:
        raise ValueError(
            f"the {role}, {type(model.module).__name__}, is no plain transformer of two blocks or more that give "
            "tokens of one size; OFAKD and ChannelTransform compare any two networks"
        )
    return [*(block.layer for block in model.blocks[:2]), model.last_map]


def exits_of(student: Model) -> list[tuple[Layer, dict[str, Any]]]:
    """The student's exits and the options of each: its stages, or blocks of a plain transformer."""
    if not student.blocks:
        first = 5 - len(student.stages)
        return [(found.layer, {"stage": stage}) for stage, found in enumerate(student.stages, first)]
    count = len(student.blocks)
    stages = {max(0, round(count * depth) - 1): stage for stage, depth in enumerate(DEPTHS, 1)}
    exits = []
    for block, stage in stages.items():
        found = student.blocks[block]
        options = {"grid": found.size} if found.kind == "tokens" else {}
        exits.append((Layer(found.path) if options else found.layer, {"stage": stage, **options}))
    return exits
