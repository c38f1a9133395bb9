"""From the name of a method and a pair of models to matches: which layer follows which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from limbeck.core.capture import Layer
from limbeck.core.criterion import name_of
from limbeck.core.match import Match
from limbeck.core.projectors import conv1x1_if_needed, conv_bn_relu, pooled
from limbeck.methods.spelling import find_method, weight_of
from limbeck.methods.table import FURTHER_PAPERS, PROJECTORS, SCHEDULES, Reads
from limbeck.models.features import before_activation, stages, survey, survey_used


@dataclass(frozen=True)
class Side:
    """The student or the teacher, whose layers a method reads."""

    model: nn.Module
    size: int  # of its images, in pixels
    layers: Sequence[str] = ()  # dotted paths; none: the method's own choice
    output: Layer = Layer("")  # how its class scores are read
    last: Layer | None = None  # its last map, where that is not the last feature with more than one position
    encoder: str = ""  # dotted path of the part that has the stages
    levels: Mapping[int, Layer] = field(default_factory=dict)  # of a detector's pyramid, by stride in pixels


def make_matches(
    method: str,
    student: Side,
    teacher: Side,
    *,
    weight: float | str | None = None,
    projector: str | None = None,
    layers: Reads | None = None,
    reduction: Literal["sum", "equal"] | None = None,
) -> list[Match]:
    """The matches of a method for a pair of models.

    Args:
        method: ``NAME``, ``NAME:option=value,...`` with options of the criterion, or ``FILE.py:NAME`` (options
            likewise) for a criterion of one's own, which then compares the last maps.
        student, teacher: Whose layers are matched.
        weight: A number, ``"auto"``, or a schedule as ``EarlyDecay:weight=6``; ``None`` for the method's own.
        projector: A name in ``PROJECTORS``; ``None`` for the method's own, which at the output is none.
        layers: What to read instead of what the method reads; ``None`` for that, or of detectors for the levels.
        reduction: How the levels of pyramids share a weight that is a number: ``"sum"`` leaves the criteria's sums over
            positions as they are, so that the finest level weighs most; ``"equal"`` multiplies each level by how many
            fewer positions it has than the finest. ``None`` is the sum.

    Raises:
        ValueError: There is no such method, option, schedule or layer.
    """
    named = bool(student.layers or teacher.layers)
    if layers and named:
        raise ValueError(f"layers are named one by one, or by --layers {layers}, not both")
    of_detectors = bool(student.levels or teacher.levels) and not named
    spelt, make = find_method(method, on_levels=of_detectors and layers in (None, "levels"))
    reads = layers or (on_detectors(spelt.reads, method) if of_detectors else spelt.reads)
    pairs = pairs_of(reads, student, teacher)
    chosen = None if reads == "output" else spelt.projector
    if reads == "levels" and chosen is conv_bn_relu:
        chosen = conv1x1_if_needed  # a pyramid's levels have negative values, which nothing after a ReLU can follow
    chosen = chosen if projector is None else PROJECTORS[projector]
    weights = [spelt.weight if weight is None else weight_of(weight)] * len(pairs)
    if reduction is not None:
        if reads != "levels" or not isinstance(weights[0], int | float):
            raise ValueError(
                f"--reduction {reduction} is of a weight that is a number, shared by the levels of detectors; "
                "auto finds a weight for each"
            )
        strides = sorted(common_strides(student, teacher))
        if reduction == "equal":
            weights = [weights[0] * (stride / strides[0]) ** 2 for stride in strides]
    return [
        Match(here, there, make(), weight=each, projector=chosen)
        for (here, there), each in zip(pairs, weights, strict=True)
    ]


def on_detectors(reads: Reads, method: str) -> Reads:
    """What a method reads of detectors: features at every level of their pyramids."""
    if reads in ("last-map", "stages"):
        return "levels"
    if reads == "output":
        raise ValueError(
            f"{method} compares class scores, of which each detector has its own kind; ChannelTransform, CWD, FGD, MGD "
            "and PKD compare the levels of pyramids"
        )
    raise ValueError(f"{method} reads {reads}, which pyramids do not have; pass --layers {reads} for the backbones'")


def pairs_of(reads: Reads, student: Side, teacher: Side) -> list[tuple[Any, Any]]:
    """Which layers of the student a method matches with which of the teacher, from the first to the deepest."""
    if reads == "levels":
        return [(student.levels[stride], teacher.levels[stride]) for stride in sorted(common_strides(student, teacher))]
    here, there = layers_of(reads, student, "student"), layers_of(reads, teacher, "teacher")
    if len(here) != len(there):
        if student.layers or teacher.layers:
            raise ValueError(
                f"{len(here)} layers of the student ({', '.join(map(str, here))}) are to follow {len(there)} of the "
                f"teacher ({', '.join(map(str, there))}): name as many with --student-layer as with --teacher-layer"
            )
        common = min(len(here), len(there))  # stages are paired from the deepest; what a first one lacks is left out
        here, there = here[-common:], there[-common:]
    return [(tuple(here), tuple(there))] if reads == "stages-together" else list(zip(here, there, strict=True))


def common_strides(student: Side, teacher: Side) -> set[int]:
    """Strides of the levels that both detectors' pyramids have."""
    common = student.levels.keys() & teacher.levels.keys()
    if not common:
        raise ValueError(
            f"the student has levels at the strides {sorted(student.levels)}, the teacher at {sorted(teacher.levels)}: "
            "none in common; name what follows what with --student-layer and --teacher-layer"
        )
    return common


def layers_of(reads: Reads, side: Side, role: Literal["student", "teacher"]) -> list[Layer]:
    if side.layers:
        return [Layer(path) for path in side.layers]
    if reads == "output":
        return [side.output]
    if reads == "last-map" and side.last is not None:
        return [side.last]
    noise = torch.rand(1, 3, side.size, side.size, generator=torch.Generator().manual_seed(0))
    # Noise, not zeros, which an untrained network may give back at every layer.
    surveyed = survey_used(side.model, noise, side.output.read) if side.output.read else survey(side.model, noise)
    if side.encoder:
        surveyed = [found for found in surveyed if f"{found.path}.".startswith(f"{side.encoder}.")]
    found = stages(side.model, surveyed)
    if reads == "last-map":
        return [found[-1].layer]
    if reads == "stages":
        return [stage.layer for stage in found]
    if reads == "stages-before-activation":
        return [before_activation(side.model, surveyed, stage) for stage in found]
    # ReviewKD: the student's stages follow the teacher's before their activation; and pooled, as the classifier has it.
    last = found[-1].layer
    each = [stage.layer if role == "student" else before_activation(side.model, surveyed, stage) for stage in found]
    return [*each, Layer(last.path, pooled(last.read))]


def used_in(matches: Sequence[Match]) -> list[str]:
    """What matches are made of that has a paper to cite, or that someone else has to name: sorted names."""
    names = set()
    for match in matches:
        names.add(name_of(match.criterion))
        names.add(getattr(match.make_projector, "__name__", ""))
        names.add(type(match.schedule).__name__ if match.schedule else "")
        names.add("standardise" if getattr(match.criterion, "standardise", False) else "")
    return sorted(names - {"", *PROJECTORS, *SCHEDULES} | names & FURTHER_PAPERS.keys())
