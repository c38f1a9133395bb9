"""What follows what: a layer of the student, a layer of the teacher, and the criterion that compares them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from numbers import Real
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from limbeck.core.auto_weight import AutoWeight
from limbeck.core.capture import Layer
from limbeck.core.checks import check_batch, check_built, check_criterion, check_projector, check_shapes, check_weight
from limbeck.core.criterion import Criterion, Feature, declared_by, name_of, take
from limbeck.core.features import as_layers, each_of, first_of, gather, names_of
from limbeck.core.loss_weights import check_scheduled
from limbeck.core.measurement import Measurement, norm
from limbeck.core.modules import evaluating
from limbeck.core.pace import ScaledGradient, WeightedValue
from limbeck.core.precision import as_weights, exact
from limbeck.core.projectors import MakeProjector, fit_grid

Weight = float | Literal["auto"] | Callable[[float], float]


class Match(nn.Module):
    """Make the student's feature at one layer follow the teacher's at another.

    A map of another height or width is brought to the teacher's grid first, then goes through the projector, then to
    the criterion, in float32 also under mixed precision.

    A criterion is any callable of (student, teacher) that gives a scalar; what else it may have is in ``Declared``.

    Args:
        student: Layer of the student, or its dotted path; a tuple of them for a criterion that fuses several.
        teacher: Layer of the teacher, likewise.
        criterion: Compares the two features.
        weight: Multiplies the criterion's value: a number; ``"auto"``, measured in training (see ``AutoWeight``), where
            all such matches share one ratio; or a function of progress in [0, 1], such as ``EarlyDecay(6.0)``, which
            then has to be told by ``Distiller.set_progress`` before each training step.
        projector: Builds the trained map from the student's channels to the teacher's, such as ``conv1x1``: called with
            one example of each feature.
        name: Of its loss; by default made of criterion and student layer, and of more where two would be the same.
        coupled: Train the weights of projector and criterion by the gradient of the weighted value, too.

    Two gradients: the student gets that of ``weight * criterion``, which is also the value that is reported. The
    weights of projector and criterion get that of ``criterion / value(0)``, so that they learn at the optimizer's pace,
    whatever the weight and the number of positions; ``value(0)`` is what the criterion gives for a student's feature of
    zeros, on the example: of a sum or mean of squares, but for biases, that of the teacher's feature, which makes it
    the relative squared error. In the formulas of the papers, which ``coupled=True`` follows, one weight multiplies
    both; only so can the gradients be differentiated again.

    Raises:
        TypeError: The criterion or the projector is none.
        ValueError: The weight is none, not finite, or below 0.
    """

    pace: Tensor | None  # multiplies the gradient of the own weights; None where there are none, or they are coupled
    scheduled: Tensor  # a weight that is a function of progress, now; a tensor, or each value would compile anew

    def __init__(
        self,
        student: Layer | str | Sequence[Layer | str],
        teacher: Layer | str | Sequence[Layer | str],
        criterion: Criterion,
        *,
        weight: Weight = 1.0,
        projector: MakeProjector | None = None,
        coupled: bool = False,
        name: str | None = None,
    ):
        super().__init__()
        check_criterion(criterion)
        check_weight(weight)
        check_projector(projector)
        self.student = as_layers(student)
        self.teacher = as_layers(teacher)
        self.criterion = criterion
        self.declared = declared_by(criterion)
        self.name = name
        self._built = False
        self.auto = AutoWeight() if weight == "auto" else None
        self.schedule = weight if callable(weight) else None
        self.constant = float(weight) if isinstance(weight, Real) else None
        self._known_weight: float | None = self.constant  # on the host; None where it is automatic
        self.register_buffer("scheduled", None if self.schedule is None else torch.zeros(()), persistent=False)
        self.set_progress(0.0)
        self._progress_known = False  # until somebody else tells it
        self.coupled = coupled
        self.register_buffer("pace", None)
        self.make_projector = projector
        self.projector: nn.Module | None = None

    def extra_repr(self) -> str:
        weight = "auto" if self.auto is not None else self.schedule or self.constant
        return f"{names_of(self.student)} follows {names_of(self.teacher)}, weight={weight}"

    def __str__(self) -> str:
        return self.name or f"{name_of(self.criterion)}:{names_of(self.student)}"

    @property
    def weight(self) -> float | None:
        """What the criterion is multiplied by now; ``None`` where ``"auto"`` has not measured. Waits for the device."""
        if self.schedule is not None:
            return self.scheduled.item()
        if self.auto is None:
            return self.constant
        weight = 0.0 if self.pace is None else float(self.auto.relative() * self.pace)
        return weight or None

    @weight.setter
    def weight(self, value: Any) -> None:
        raise AttributeError("a Match keeps its weight; pass a function of progress, and call distiller.set_progress")

    @property
    def measuring(self) -> bool:
        """Whether the weight is ``"auto"`` and not known yet."""
        return self.weight is None

    @property
    def idle(self) -> bool:
        """Whether the weight is 0 now."""
        return self._known_weight == 0

    def set_progress(self, progress: float) -> None:
        """Bring a weight that is a function of progress up to date; others stay as they are."""
        if self.schedule is None:
            return
        weight = float(self.schedule(progress))
        check_scheduled(self, weight, progress)
        self.scheduled.fill_(weight)
        self._known_weight = weight
        self._progress_known = True

    def build(self, student: Feature, teacher: Feature) -> None:
        """Build projector and criterion from one example of each feature, on the student's device, as precise as it."""
        self._check_unused()
        check_batch(self, first_of(student), first_of(teacher))
        like = exact(first_of(student))
        if self.make_projector is not None:
            if isinstance(student, tuple) or isinstance(teacher, tuple):
                raise ValueError(f"{self}: a projector takes one layer of each model, not a tuple of layers")
            made = self.make_projector(fit_grid(exact(student), teacher), exact(teacher))
            self.projector = check_built(made, self.make_projector).to(like)
        with evaluating(self):  # a batch norm of the projector is not to learn from the example
            student, teacher = self._arrange(student, teacher)
        if self.declared.build is not None:
            self.declared.build(student, teacher)
            if isinstance(self.criterion, nn.Module):
                self.criterion.to(like)
        elif isinstance(student, Tensor) and isinstance(teacher, Tensor) and not self.declared.any_shape:
            check_shapes(names_of(self.student), student, names_of(self.teacher), teacher, self.projector)

    def set_pace(self, student: Feature, teacher: Feature, truth: Any = None) -> None:
        """Find the pace from the example, once everything is built."""
        if self.auto is None and (self.coupled or next(self.parameters(), None) is None):
            return
        with evaluating(self):
            value = self(tree_map(torch.zeros_like, student), teacher, truth).detach()
        self.pace = 1 / torch.where(value.isfinite() & (value > 0), value, 1.0)

    def loss(self, student: Feature, teacher: Feature, truth: Any = None) -> Tensor:
        """The weighted value, with the two gradients of a match."""
        weight = self._current_weight()
        if self.pace is None or not torch.is_grad_enabled():
            value: Tensor = self(student, teacher, truth)
            return value * weight
        factor, pace = self._factor_and_pace(weight)
        student = tree_map(lambda feature: ScaledGradient.apply(feature, factor), student)
        weighted: Tensor = WeightedValue.apply(self(student, teacher, truth), weight, pace)
        return weighted

    def measured_loss(
        self, measurement: Measurement, returned: dict[Layer, Any], teacher: Feature, truth: Any = None
    ) -> Tensor:
        """The same of a match whose weight is ``"auto"``, from what the student's layers returned, and measured."""
        assert self.auto is not None
        assert self.pace is not None
        weight = self._current_weight()
        factor, pace = self._factor_and_pace(weight)
        read = partial(measurement.read, sums=self.auto.sums, factor=factor, unit=self.pace / pace)
        features = {layer: read(layer, returned[layer]) for layer in self.student}
        value: Tensor = self(gather(features, self.student), teacher, truth)
        weighted: Tensor = WeightedValue.apply(value, weight, pace)
        if weighted.requires_grad:
            norms = [norm(feature.detach()) for feature in features.values()]
            weighted.register_hook(partial(self.auto.add_floor, torch.stack(norms).norm()))  # type: ignore[no-untyped-call]
        return weighted

    def _current_weight(self) -> float | Tensor:
        if self.schedule is not None:
            if self.training and torch.is_grad_enabled() and not self._progress_known:
                raise RuntimeError(
                    f"the weight of {self} is a function of progress: call set_progress(step / steps) of the distiller "
                    "before each training step"
                )
            return self.scheduled.clone()  # it may be set anew before the backward pass
        if self.auto is not None:
            assert self.pace is not None
            return self.auto.relative() * self.pace
        assert self.constant is not None
        return self.constant

    def _factor_and_pace(self, weight: float | Tensor) -> tuple[Tensor, Tensor]:
        """What the gradient is multiplied by between criterion and student, and before the criterion."""
        assert self.pace is not None
        pace = self.pace
        if self.coupled and isinstance(weight, Tensor):  # automatic, and nothing is multiplied by 0, or not measured
            pace = torch.where(weight > 0, weight, pace)
        return weight / pace, pace

    def forward(self, student: Feature, teacher: Feature, truth: Any = None) -> Tensor:
        """The criterion's value, not yet weighted."""
        check_batch(self, first_of(student), first_of(teacher))
        with torch.autocast(first_of(student).device.type, enabled=False):
            student, teacher = self._arrange(student, teacher)
            further = (truth,) if self.declared.needs_truth else ()
            value: Tensor = self.criterion(student, teacher, *further)
            return value

    def compared(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The student's feature as it is compared: on the teacher's grid, in its channels where something maps them."""
        arranged: Tensor = self._arrange(student, teacher)[0]  # type: ignore[assignment]
        return arranged if self.declared.project is None else self.declared.project(arranged)

    def _arrange(self, student: Feature, teacher: Feature) -> tuple[Feature, Feature]:
        """As the criterion takes them: on one grid, through the projector, in its precision."""
        if isinstance(student, Tensor) and isinstance(teacher, Tensor):
            if self.projector is None and self.declared.mixed_precision:
                return fit_grid(student, teacher), teacher
            student, teacher = fit_grid(exact(student), teacher), exact(teacher)
            if self.projector is not None:
                student = exact(self.projector(as_weights(student, self.projector)))
        else:
            student, teacher = each_of(exact, student), each_of(exact, teacher)
        if isinstance(self.criterion, nn.Module) and not self.declared.mixed_precision:
            in_its_precision = partial(as_weights, module=self.criterion)
            return each_of(in_its_precision, student), each_of(in_its_precision, teacher)
        return student, teacher

    def _check_unused(self) -> None:
        if self._built:
            raise ValueError(f"{self} is built for another Distiller already; make a Match for each")
        if self.declared.build is not None and isinstance(self.criterion, nn.Module):
            take(self.criterion, self)
        self._built = True
