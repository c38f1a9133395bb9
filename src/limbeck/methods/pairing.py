"""From the name of a method and a pair of models to matches: which layer follows which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any, Literal

from limbeck.core.capture import Layer
from limbeck.core.criterion import name_of
from limbeck.core.match import Match, Weight
from limbeck.core.modules import find
from limbeck.methods.levels import common_strides
from limbeck.methods.method import FUSED, OF_SCORES, Method, Reads
from limbeck.methods.places import exits_of, layers_of
from limbeck.methods.predictions import PREDICTIONS, match_predictions, refuse_options
from limbeck.methods.spelling import find_method, weight_of
from limbeck.methods.table import FURTHER_PAPERS, PROJECTORS, SCHEDULES
from limbeck.models.features import survey
from limbeck.models.model import Model


def make_matches(
    method: str,
    student: Model,
    teacher: Model,
    *,
    student_layers: Sequence[str] = (),
    teacher_layers: Sequence[str] = (),
    weight: float | str | None = None,
    projector: str | None = None,
    layers: Reads | None = None,
    strides: Collection[int] = (),
    reduction: Literal["sum", "equal"] | None = None,
) -> list[Match]:
    """The matches of a method for a pair of models.

    Args:
        method: ``NAME``, ``NAME:option=value,...`` with options of the criterion, or ``FILE.py:NAME`` (options
            likewise) for a criterion of one's own, which then compares the last maps.
        student, teacher: Whose layers are matched.
        student_layers, teacher_layers: Dotted paths of layers, one for each of the other's, instead of the method's own
            choice.
        weight: A number, ``"auto"``, or a schedule as ``EarlyDecay:weight=6``; ``None`` for the method's own.
        projector: A name in ``PROJECTORS``; ``None`` for the method's own, which at the output is none.
        layers: What to read instead of what the method reads; ``None`` for that, or of detectors for the levels.
        strides: Read only the levels at these strides, in pixels, of detectors' pyramids; all where none is named.
        reduction: How the levels of pyramids share a weight that is a number: ``"sum"`` leaves the criteria's sums over
            positions as they are, so that the finest level weighs most; ``"equal"`` multiplies each level by how many
            fewer positions it has than the finest. ``None`` is the sum.

    Raises:
        ValueError: There is no such method, option, schedule or layer, or the weight is not above 0.
    """
    named = bool(student_layers or teacher_layers)
    if layers and named:
        raise ValueError(f"layers are named one by one, or by --layers {layers}, not both")
    of_detectors = bool(student.levels or teacher.levels) and not named
    spelt, make = find_method(method, on_levels=of_detectors and layers in (None, "levels"))
    chosen_weight = _weight(method, spelt, weight)
    if spelt.reads in PREDICTIONS:
        refuse_options(method, layers=named or layers, projector=projector, reduction=reduction)
        return [match_predictions(method, spelt.reads, make, student, teacher, strides, chosen_weight)]
    if spelt.reads == "named" and not (student_layers and teacher_layers):
        raise ValueError(
            f"{method} compares {spelt.compares}: name your layers with --student-layer and --teacher-layer; "
            "no detector of torchvision has such a head (limbeck layers shows what a model has)"
        )
    reads = layers or (spelt.reads if named else usual_place(spelt, method, student, teacher))
    if reads == "levels":
        common = common_strides(student, teacher, strides)
        pairs = [(student.levels[stride], teacher.levels[stride]) for stride in common]
    else:
        pairs = pairs_of(reads, student, teacher, student_layers, teacher_layers)
    further: list[dict[str, Any]] = [{}] * len(pairs)  # options of the criterion at each
    if reads == "exits" and not named:
        exits = exits_of(student)
        pairs = [*((layer, teacher.output) for layer, _ in exits), *pairs]
        further = [*(options for _, options in exits), *further]
    chosen = spelt.projector_at(reads) if projector is None else PROJECTORS[projector]
    if reads == "distillation-head" and chosen_weight == "auto":
        raise ValueError(
            f"{method} at the distillation head needs a weight that is a number, as --weight 1: the labels bring no "
            "gradient there, which auto would follow"
        )
    weights: Sequence[Weight] = [chosen_weight] * len(pairs)
    if reduction is not None:
        weights = _shared(reduction, common if reads == "levels" else [], chosen_weight)
    return [
        Match(student_layer, teacher_layer, make(**options), weight=each, projector=chosen)
        for (student_layer, teacher_layer), each, options in zip(pairs, weights, further, strict=True)
    ]


def _weight(method: str, spelt: Method, weight: float | str | None) -> Weight:
    """The method's own weight, or another one."""
    chosen = spelt.weight if weight is None else weight_of(weight)
    if isinstance(chosen, int | float) and chosen <= 0:
        raise ValueError(
            f"the weight of {method} is {chosen:g}; it has to be above 0, or the student learns nothing "
            "from the teacher: limbeck train trains it alone"
        )
    return chosen


def _shared(reduction: Literal["sum", "equal"], strides: Sequence[int], weight: Weight) -> list[float]:
    """The weight of each level of a pyramid; there are no strides where no levels are read."""
    if not strides or not isinstance(weight, int | float):
        raise ValueError(
            f"--reduction {reduction} is of a weight that is a number, shared by the levels of detectors; "
            "auto finds a weight for each"
        )
    return [weight * (stride / strides[0]) ** 2 if reduction == "equal" else weight for stride in strides]


def usual_place(spelt: Method, method: str, student: Model, teacher: Model) -> Reads:
    """What a method reads of two models, unless something else is asked for."""
    if student.levels or teacher.levels:
        return on_detectors(spelt.reads, method)
    if spelt.takes_vectors and spelt.reads == "last-map" and (student.class_token or teacher.class_token):
        return "embedding"
    return spelt.reads


def on_detectors(reads: Reads, method: str) -> Reads:
    """What a method reads of detectors: features at every level of their pyramids."""
    if reads in ("last-map", "stages"):
        return "levels"
    if reads in OF_SCORES:
        raise ValueError(
            f"{method} compares class scores, of which each detector has its own kind; ChannelTransform, CWD, FGD, MGD "
            "and PKD compare the levels of pyramids"
        )
    raise ValueError(f"{method} reads {reads}, which pyramids do not have; pass --layers {reads} for the backbones'")


def pairs_of(
    reads: Reads, student: Model, teacher: Model, student_layers: Sequence[str], teacher_layers: Sequence[str]
) -> list[tuple[Any, Any]]:
    """Which layers of the student a method matches with which of the teacher, from the first to the deepest."""
    of_student = _named(student_layers, student, "student") or layers_of(reads, student, "student")
    of_teacher = _named(teacher_layers, teacher, "teacher") or layers_of(reads, teacher, "teacher")
    if len(of_student) != len(of_teacher):
        if student_layers or teacher_layers:
            raise ValueError(
                f"{len(of_student)} layers of the student ({', '.join(map(str, of_student))}) are to follow "
                f"{len(of_teacher)} of the teacher ({', '.join(map(str, of_teacher))}): name as many with "
                "--student-layer as with --teacher-layer"
            )
        common = min(len(of_student), len(of_teacher))  # paired from the deepest; what a first one lacks is left out
        of_student, of_teacher = of_student[-common:], of_teacher[-common:]
    if reads in FUSED:
        return [(tuple(of_student), tuple(of_teacher))]
    return list(zip(of_student, of_teacher, strict=True))


def _named(paths: Sequence[str], model: Model, role: str) -> list[Layer]:
    """Layers that the user named, of which a wrong one is told with the model that lacks it, or runs it not once."""
    runs = Counter(found.path for found in survey(model.module, model.inputs.example)) if paths else Counter()
    for path in paths:
        try:
            find(model.module, path)
        except ValueError as error:
            raise ValueError(f"--{role}-layer: {error}") from None
        if runs[path] != 1:
            raise ValueError(
                f"--{role}-layer {path}: it gives {runs[path] or 'no'} tensors for an image; name one that gives one, "
                "such as the module around it (limbeck layers lists them)"
            )
    return [Layer(path) for path in paths]


def used_in(matches: Sequence[Match]) -> list[str]:
    """What matches are made of that has a paper to cite, or that someone else has to name: sorted names."""
    names = set()
    for match in matches:
        parts = (match.criterion, match.make_projector, match.schedule)
        names |= {name_of(part) for part in parts if part is not None}
        names |= {"standardise"} if getattr(match.criterion, "standardise", False) else set()
    return sorted(names - {"<lambda>", *PROJECTORS, *SCHEDULES} | names & FURTHER_PAPERS.keys())
