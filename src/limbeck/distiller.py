"""Run a student beside a frozen teacher, and compare their features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from limbeck.calibration import AutoWeight
from limbeck.capture import Capture, Layer
from limbeck.projectors import MakeProjector, fit_grid
from limbeck.teacher import Example, Teacher, as_layer, call

Criterion = Callable[..., Tensor]  # (student, teacher) -> scalar; nn.MSELoss() is one
Feature = Tensor | tuple[Tensor, ...]


class Match(nn.Module):
    """Make the student's feature at one layer follow the teacher's at another.

    A map of another height or width is brought to the teacher's grid first, then goes through the projector, then to
    the criterion, in float32 also under mixed precision.

    A criterion is any callable of (student, teacher) that gives a scalar. One with weights is an ``nn.Module`` with a
    method ``build(student, teacher)``, called once with example features. What else it wants, it declares by an
    attribute: ``needs_truth`` (it is called with ``truth`` as third argument), ``any_shape`` (its features need not
    have one shape), ``mixed_precision`` (it takes features in low precision and mixes precisions by itself).

    Args:
        student: Layer of the student, or its dotted path; a tuple of them for a criterion that fuses several.
        teacher: Layer of the teacher, likewise.
        criterion: Compares the two features.
        weight: Multiplies the criterion's value; ``"auto"`` measures it over the first batches (see ``AutoWeight``).
        projector: Builds the trained map from the student's channels to the teacher's, such as ``conv1x1``.
    """

    def __init__(
        self,
        student: Layer | str | Sequence[Layer | str],
        teacher: Layer | str | Sequence[Layer | str],
        criterion: Criterion,
        *,
        weight: float | Literal["auto"] = 1.0,
        projector: MakeProjector | None = None,
    ):
        super().__init__()
        self.student = as_layers(student)
        self.teacher = as_layers(teacher)
        self.criterion = criterion
        self.auto = AutoWeight() if weight == "auto" else None
        self._weight = None if weight == "auto" else float(weight)
        self.make_projector = projector
        self.projector: nn.Module | None = None

    def __str__(self) -> str:
        name = getattr(self.criterion, "__name__", type(self.criterion).__name__)
        return f"{name}:{'+'.join(map(str, self.student))}"

    @property
    def weight(self) -> float | None:
        """What the criterion is multiplied by; ``None`` while ``"auto"`` is still measuring."""
        return self.auto.value if self.auto is not None else self._weight

    def build(self, student: Feature, teacher: Feature) -> None:
        """Build the projector and the criterion from one example of each feature."""
        if self.make_projector is not None:
            if not (isinstance(student, Tensor) and isinstance(teacher, Tensor)):
                raise ValueError(f"{self}: a projector takes one layer of each model, not a tuple of layers")
            example = fit_grid(student, teacher)
            self.projector = self.make_projector(example, teacher).to(teacher.device)
        student, teacher = self._arrange(student, teacher)
        if hasattr(self.criterion, "build"):
            self.criterion.build(student, teacher)
            self.to(first_of(teacher).device)
        elif (
            isinstance(student, Tensor)
            and isinstance(teacher, Tensor)
            and not getattr(self.criterion, "any_shape", False)
        ):
            self._check_shapes(student, teacher)

    def forward(self, student: Feature, teacher: Feature, truth: Any = None) -> Tensor:
        """The criterion's value, not yet weighted."""
        with torch.autocast(first_of(student).device.type, enabled=False):
            student, teacher = self._arrange(student, teacher)
            further = (truth,) if getattr(self.criterion, "needs_truth", False) else ()
            value: Tensor = self.criterion(student, teacher, *further)
            return value

    def weigh(self, value: Tensor, sources: dict[Layer, list[Tensor]] | None) -> Tensor:
        """The weighted value; while ``"auto"`` measures, 0 with that gradient watched."""
        if (weight := self.weight) is not None:
            return value * weight
        assert self.auto is not None
        if sources is None or not value.requires_grad:
            return value * 0
        weighted: Tensor = self.auto.measure(value, [tensor for layer in self.student for tensor in sources[layer]])
        return weighted

    def _arrange(self, student: Feature, teacher: Feature) -> tuple[Feature, Feature]:
        if not (isinstance(student, Tensor) and isinstance(teacher, Tensor)):
            return tuple(map(in_float32, student)), tuple(map(in_float32, teacher))
        if self.projector is not None or not getattr(self.criterion, "mixed_precision", False):
            student, teacher = in_float32(student), in_float32(teacher)
        student = fit_grid(student, teacher)
        return student if self.projector is None else self.projector(student), teacher

    def _check_shapes(self, student: Tensor, teacher: Tensor) -> None:
        if student.shape == teacher.shape:
            return
        remedy = "for other channels pass projector=conv1x1"
        if student.ndim != teacher.ndim:
            remedy = "read both as maps, for example Layer(path, read=tokens_to_map(prefix=1))"
        raise ValueError(
            f"student {'+'.join(map(str, self.student))} gives {tuple(student.shape)}, "
            f"teacher {'+'.join(map(str, self.teacher))} gives {tuple(teacher.shape)}; {remedy}"
        )


class Distilled(NamedTuple):
    """What one step of a ``Distiller`` gives."""

    output: Any  # whatever the student returned
    losses: dict[str, Tensor]  # one weighted scalar for each match

    @property
    def loss(self) -> Tensor:
        """The sum of the losses, to be added to the student's own."""
        return torch.stack(list(self.losses.values())).sum()


class Distiller(nn.Module):
    """A student, a frozen teacher, and the matches between them, called as the student is called.

    ``parameters()`` and ``state_dict()`` are the student's, the projectors' and the criteria's, never the teacher's.
    The example runs once, here, in eval mode: it builds what must be built, and tells mistakes before training starts.
    Wrap the Distiller, not the student, in DDP: projectors and criteria are trained too.

    Args:
        student: The model to train.
        teacher: Any module, which is frozen and stops after the last layer that a match reads; or a ``Teacher`` from
            ``prepare_teacher``.
        matches: What follows what; each needs a name of its own, made of criterion and student layer.
        example: Inputs to call the student with: a tuple, or a dict of keyword arguments.
        truth, teacher_inputs: As in the calls to come, where these have them.

    Raises:
        ValueError: A layer does not exist, shapes do not fit, names repeat, or the models share weights.
        RuntimeError: A layer did not run exactly once.
        TypeError: What a layer gives is no tensor.
    """

    matches: Sequence[Match]

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        matches: Sequence[Match],
        *,
        example: Example,
        truth: Any = None,
        teacher_inputs: Example | None = None,
    ):
        super().__init__()
        names = [str(match) for match in matches]
        if not names:
            raise ValueError("no matches: the student would be trained alone")
        if len(set(names)) < len(names):
            raise ValueError(f"two matches have one name, so one loss would hide the other: {names}")
        frozen = teacher.model if isinstance(teacher, Teacher) else teacher
        if {id(p) for p in student.parameters()} & {id(p) for p in frozen.parameters()}:
            raise ValueError("student and teacher share weights, which would be frozen; pass copy.deepcopy(teacher)")
        wanted = dict.fromkeys(layer for match in matches for layer in match.teacher)
        self.student = student
        self.matches = nn.ModuleList(matches)  # type: ignore[assignment]
        self._call_student = Capture(student, [layer for match in matches for layer in match.student])
        self.teacher = teacher if isinstance(teacher, Teacher) else Teacher(teacher, wanted, truncate=False)
        if missing := [str(layer) for layer in wanted if layer not in self.teacher.capture.layers]:
            raise ValueError(f"the teacher was not prepared for {missing}; name them in prepare_teacher(..., layers)")
        # A plain teacher runs whole this once, which tells of a layer that runs twice.
        self._build(example, truth, teacher_inputs)
        if not isinstance(teacher, Teacher):
            self.teacher.capture.truncate = True

    def forward(self, *args: Any, truth: Any = None, teacher_inputs: Example | None = None, **kwargs: Any) -> Distilled:
        """Run teacher and student, and compare them.

        Args:
            *args, **kwargs: Inputs of the student, and of the teacher unless ``teacher_inputs`` is given.
            truth: Given to the criteria that need the ground truth.
            teacher_inputs: Inputs of the teacher where they differ from the student's, such as another image size.
        """
        if self.training and torch.is_grad_enabled() and any(match.weight is None for match in self.matches):
            measured: Distilled = self._measure(*args, truth=truth, teacher_inputs=teacher_inputs, **kwargs)
            return measured
        return self._compare(*args, truth=truth, teacher_inputs=teacher_inputs, **kwargs)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _measure(self, *args: Any, **kwargs: Any) -> Distilled:
        """A forward pass while a weight is measured: without compilation, which hides gradients inside the student."""
        for match in self.matches:
            if match.auto is not None and match.weight is None:
                match.auto.collect(str(match))
        self._call_student.sources = {}
        try:
            with torch.compiler.set_stance("force_eager"):
                return self._compare(*args, **kwargs)
        finally:
            self._call_student.sources = None

    def _compare(self, *args: Any, truth: Any, teacher_inputs: Example | None, **kwargs: Any) -> Distilled:
        teacher = self.teacher(*args, **kwargs) if teacher_inputs is None else call(self.teacher, teacher_inputs)
        output, student = self._call_student(*args, **kwargs)
        losses = {}
        for match in self.matches:
            features = gather(student, match.student)
            value = match(features, gather(teacher, match.teacher), truth)
            losses[str(match)] = match.weigh(value, self._call_student.sources)
        return Distilled(output, losses)

    @torch.no_grad()
    def _build(self, example: Example, truth: Any, teacher_inputs: Example | None) -> None:
        modes = {module: module.training for module in self.student.modules()}
        self.eval()  # so that batch norm learns nothing from the example
        try:
            _, student = call(self._call_student, example)
            teacher = call(self.teacher, example if teacher_inputs is None else teacher_inputs)
            for match in self.matches:
                pair = gather(student, match.student), gather(teacher, match.teacher)
                if getattr(match.criterion, "needs_truth", False) and truth is None:
                    raise ValueError(f"{match} needs the ground truth: pass truth=... here and in each call")
                match.build(*pair)
                value = match(*pair, truth)
                if not isinstance(value, Tensor) or value.ndim != 0:
                    shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                    raise ValueError(
                        f"the criterion of {match} gives {shape}, not a scalar tensor; reduce it, as .mean()"
                    )
        finally:
            for module in self.modules():
                module.training = modes.get(module, True)


def as_layers(layers: Layer | str | Sequence[Layer | str]) -> tuple[Layer, ...]:
    if isinstance(layers, Layer | str):
        return (as_layer(layers),)
    return tuple(as_layer(layer) for layer in layers)


def gather(features: dict[Layer, Tensor], layers: tuple[Layer, ...]) -> Feature:
    """One feature for one layer, a tuple for several."""
    return features[layers[0]] if len(layers) == 1 else tuple(features[layer] for layer in layers)


def first_of(feature: Feature) -> Tensor:
    return feature if isinstance(feature, Tensor) else feature[0]


def in_float32(feature: Tensor) -> Tensor:
    return feature.float() if feature.dtype in (torch.bfloat16, torch.float16) else feature
