"""The methods by name, for command line, docs and benchmarks: which criterion, where it reads, what it weighs.

The library needs no names: whoever writes Python imports a criterion and puts it into a ``Match``.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from inspect import signature
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from limbeck import criteria
from limbeck.capture import Layer
from limbeck.layers import before_activation, stages, survey
from limbeck.match import Criterion, Match, Weight
from limbeck.models import function_in
from limbeck.projectors import (
    MakeProjector,
    conv1x1,
    conv1x1_if_needed,
    conv_bn,
    conv_bn_relu,
    orthogonal,
    pooled,
)
from limbeck.weights import EarlyDecay, WarmUp

Reads = Literal["output", "last-map", "stages", "stages-before-activation", "stages-together"]
PROJECTORS: dict[str, MakeProjector | None] = {
    "off": None,
    **{make.__name__: make for make in (conv1x1, conv1x1_if_needed, conv_bn, conv_bn_relu, orthogonal)},
}
SCHEDULES = {schedule.__name__: schedule for schedule in (EarlyDecay, WarmUp)}


@dataclass(frozen=True)
class Method:
    """A method of the field: a criterion, and what its paper puts around it.

    Weights are the published ones where they hold for any network: where the loss is of class scores, or normalised.
    """

    criterion: Callable[..., Criterion]
    paper: str  # key in methods.bib
    compares: str
    reads: Reads = "last-map"
    projector: MakeProjector | None = None
    weight: Weight = "auto"


METHODS: Mapping[str, Method] = {
    "ChannelTransform": Method(
        criteria.ChannelTransform, "liu2023simple", "features, after a learned nonlinear map of the student's channels"
    ),
    "KD": Method(criteria.KD, "hinton2015distilling", "softened class probabilities", "output", weight=1.0),
    "DKD": Method(
        criteria.DKD,
        "zhao2022decoupled",
        "probability of the true class, and the others among themselves",
        "output",
        weight=WarmUp(1.0),
    ),
    "DIST": Method(
        criteria.DIST, "huang2022knowledge", "correlation of probabilities, by image and by class", "output", weight=2.0
    ),
    "NKD": Method(
        criteria.NKD, "yang2023knowledge", "true class, and the others among themselves", "output", weight=1.0
    ),
    "GuidedKD": Method(
        criteria.GuidedKD, "zhou2020channel", "class probabilities where the teacher is right", "output", weight=1.0
    ),
    "FitNet": Method(nn.MSELoss, "romero2015fitnets", "features, by mean squared error", projector=conv_bn_relu),
    "AttentionTransfer": Method(
        criteria.AttentionTransfer, "zagoruyko2017paying", "where the energy of a map lies", "stages", weight=1000.0
    ),
    "SimilarityPreserving": Method(
        criteria.SimilarityPreserving, "tung2019similarity", "which images of a batch look alike", weight=3000.0
    ),
    "RKD": Method(criteria.RKD, "park2019relational", "distances and angles among the images of a batch", weight=1.0),
    "OFD": Method(
        criteria.OFD,
        "heo2019comprehensive",
        "features before their activation, above a margin",
        "stages-before-activation",
        conv_bn,
    ),
    "ChannelDistillation": Method(
        criteria.ChannelDistillation, "zhou2020channel", "mean of each channel", "stages", conv_bn_relu, 6.0
    ),
    "ReviewKD": Method(
        criteria.ReviewKD,
        "chen2021distilling",
        "features fused from the deepest to the first, at several scales",
        "stages-together",
        weight=WarmUp(1.0),
    ),
    "CWD": Method(criteria.CWD, "shu2021channel", "where each channel looks", projector=conv_bn_relu),
    "MGD": Method(criteria.MGD, "yang2022masked", "features generated from a masked one", projector=conv1x1_if_needed),
    "PKD": Method(
        criteria.PKD, "cao2022pkd", "how each channel varies, whatever its scale", projector=conv1x1_if_needed
    ),
    "FGD": Method(
        criteria.FGD,
        "yang2022focal",
        "features, weighed by attention and by boxes; global context",
        projector=conv1x1_if_needed,
        weight=1.0,
    ),
    "FKD": Method(criteria.FKD, "zhang2021improve", "features where attention lies; non-local relations"),
    "Cosine": Method(
        criteria.Cosine, "ranzinger2024radio", "direction and value of each position's feature", projector=conv1x1
    ),
}

FURTHER_PAPERS = {  # of what a run may use beside a method, by the name it has in Python
    "MSELoss": "romero2015fitnets",
    "orthogonal": "miles2024vkd",
    "standardise": "sun2024logit",
    "EarlyDecay": "zhou2020channel",
}


@dataclass(frozen=True)
class Side:
    """The student or the teacher, whose layers a method reads."""

    model: nn.Module
    size: int  # of its images, in pixels
    layers: Sequence[str] = ()  # dotted paths; none: the method's own choice


def make_matches(
    method: str,
    student: Side,
    teacher: Side,
    *,
    weight: float | str | None = None,
    projector: str | None = None,
    layers: Reads | None = None,
) -> list[Match]:
    """The matches of a method for a pair of models.

    Args:
        method: ``NAME``, ``NAME:option=value,...`` with options of the criterion, or ``FILE.py:NAME`` (options
            likewise) for a criterion of one's own, which then compares the last maps.
        student, teacher: Whose layers are matched.
        weight: A number, ``"auto"``, or a schedule as ``EarlyDecay:weight=6``; ``None`` for the method's own.
        projector: A name in ``PROJECTORS``; ``None`` for the method's own, which at the output is none.
        layers: What to read instead of what the method reads; ``None`` for that.

    Raises:
        ValueError: There is no such method, option, schedule or layer.
    """
    spelt, make = find_method(method)
    reads = layers or spelt.reads
    pairs = pairs_of(reads, student, teacher)
    own_projector = None if reads == "output" else spelt.projector
    return [
        Match(
            here,
            there,
            make(),
            weight=spelt.weight if weight is None else weight_of(weight),
            projector=own_projector if projector is None else PROJECTORS[projector],
        )
        for here, there in pairs
    ]


def find_method(spec: str) -> tuple[Method, Callable[[], Criterion]]:
    """The method that ``NAME:option=value,...`` names, and what makes its criterion with these options."""
    if ".py:" in spec:
        file, _, rest = spec.partition(".py:")
        name, _, options = rest.partition(":")
        own = function_in(Path(f"{file}.py"), name)
        any_channels = hasattr(own, "build") or getattr(own, "any_shape", False)
        method = Method(own, "", "", projector=None if any_channels else conv1x1_if_needed)
        if not isinstance(own, type):  # a function of (student, teacher) is the criterion
            if options:
                raise ValueError(f"{spec}: {name} is a function, which takes no options")
            return method, lambda: own
    else:
        name, _, options = spec.partition(":")
        method = METHODS[known(name, METHODS, "method")]
    given = options_of(options, method.criterion, name)
    return method, lambda: method.criterion(**given)


def weight_of(spec: float | str) -> Weight:
    """A weight from ``"auto"``, a number, or ``NAME:option=value,...`` for a schedule."""
    if not isinstance(spec, str) or spec == "auto":
        return spec  # type: ignore[return-value]
    try:
        return float(spec)
    except ValueError:
        name, _, options = spec.partition(":")
        schedule = SCHEDULES[known(name, SCHEDULES, "weight (a number, auto, or a schedule)")]
        given = options_of(options, schedule, name)
        if "weight" not in given:
            raise ValueError(f"{name} needs a weight: {name}:weight=1") from None
        return schedule(**given)


def known(name: str, names: Mapping[str, Any], kind: str) -> str:
    if name not in names:
        nearest = get_close_matches(name, names, n=1, cutoff=0.5)
        meant = f", did you mean {nearest[0]}?" if nearest else ";"
        raise ValueError(f"no {kind} {name!r}{meant} there are {', '.join(names)}")
    return name


def options_of(text: str, make: Callable[..., Any], name: str) -> dict[str, Any]:
    """Keyword arguments from ``option=value,...``; values are Python's literals, or words."""
    takes = [parameter for parameter in signature(make).parameters if parameter != "norm"]
    try:
        call = ast.parse(f"f({text})", mode="eval").body
        assert isinstance(call, ast.Call)
        assert not call.args
        given = {
            keyword.arg or "**": keyword.value.id
            if isinstance(keyword.value, ast.Name)
            else ast.literal_eval(keyword.value)
            for keyword in call.keywords
        }
    except (SyntaxError, ValueError, AssertionError):
        raise ValueError(f"{name}:{text}: options are written {name}:option=value,option=value") from None
    for option in given:
        if option not in takes:
            raise ValueError(f"{name} has no option {option!r}; it has {', '.join(takes) or 'none'}")
    return given


def pairs_of(reads: Reads, student: Side, teacher: Side) -> list[tuple[Any, Any]]:
    """Which layers of the student a method matches with which of the teacher, from the first to the deepest."""
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


def layers_of(reads: Reads, side: Side, role: Literal["student", "teacher"]) -> list[Layer]:
    if side.layers:
        return [Layer(path) for path in side.layers]
    if reads == "output":
        return [Layer("")]
    noise = torch.rand(1, 3, side.size, side.size, generator=torch.Generator().manual_seed(0))
    surveyed = survey(side.model, noise)  # not zeros, which an untrained network may give back at every layer
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
        names.add(getattr(match.criterion, "__name__", type(match.criterion).__name__))
        names.add(getattr(match.make_projector, "__name__", ""))
        names.add(type(match.schedule).__name__ if match.schedule else "")
        names.add("standardise" if getattr(match.criterion, "standardise", False) else "")
    return sorted(names - {"", *PROJECTORS, *SCHEDULES} | names & FURTHER_PAPERS.keys())
