"""Run a student beside a frozen teacher, and compare their features."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from limbeck.core.auto_weight import BATCHES, AutoWeight
from limbeck.core.capture import Capture
from limbeck.core.match import Match, gather, share_ratio
from limbeck.core.measurement import Measurement
from limbeck.core.modules import Example, call, evaluating, is_compiled
from limbeck.core.teacher import Teacher

logger = logging.getLogger("limbeck")
UNCOMPILED = (
    f"weight='auto' is measured without compilation in the first {BATCHES + 1} training steps: run these before "
    "torch.compile(distiller, fullgraph=True), compile without fullgraph=True, or pass a number"
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
        process_group: Of the processes that train this student, which agree on the weights that are ``"auto"``; by
            default all there are. Processes that train students of their own each pass a group of their own.

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
        process_group: dist.ProcessGroup | None = None,
    ):
        super().__init__()
        names = [str(match) for match in matches]
        if not names:
            raise ValueError("no matches: the student would be trained alone")
        if len(set(names)) < len(names):
            raise ValueError(f"two matches have one name, so one loss would hide the other: {names}")
        frozen = teacher.model if isinstance(teacher, Teacher) else teacher
        tensors = [{id(t) for t in (*model.parameters(), *model.buffers())} for model in (student, frozen)]
        if tensors[0] & tensors[1]:
            raise ValueError("student and teacher share weights or buffers; pass copy.deepcopy(teacher)")
        wanted = dict.fromkeys(layer for match in matches for layer in match.teacher)
        self.student = student
        self.matches = nn.ModuleList(matches)  # type: ignore[assignment]
        share_ratio([match for match in matches if match.auto is not None], process_group)
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
        run = self._compare
        if self._automatic and torch.is_grad_enabled():
            if torch.compiler.is_compiling():
                run = self._run_uncompiled if self._is_starting() else run
            elif self._is_due():
                run = self._measure
        return run(*args, truth=truth, teacher_inputs=teacher_inputs, **kwargs)

    def set_progress(self, progress: float) -> None:
        """Tell how far training has come, in [0, 1], to the matches whose weight is a function of it."""
        if not 0 <= progress <= 1:
            raise ValueError(f"progress is {progress}; it is the part of training that is done, from 0 to 1")
        for match in self.matches:
            match.set_progress(progress)

    @torch.compiler.disable(reason=UNCOMPILED)  # type: ignore[untyped-decorator, no-untyped-call]
    def _run_uncompiled(self, *args: Any, **kwargs: Any) -> Distilled:
        distilled: Distilled = self.forward(*args, **kwargs)
        return distilled

    def _is_due(self) -> bool:
        """Whether this forward pass is one of those from whose backward pass a weight is found."""
        starting = self._is_starting()
        due = [auto.begin(name) for name, auto in self._automatic.items()]
        if starting and not self._is_starting() and logger.isEnabledFor(logging.INFO):
            for match in self.matches:
                logger.info("weight of %s: %.4g", match, match.weight)
        return any(due) and (self._is_starting() or not is_compiled(self.student))

    @property
    def _automatic(self) -> dict[str, AutoWeight]:
        return {str(match): match.auto for match in self.matches if match.auto is not None}

    def _is_starting(self) -> bool:
        return any(auto.starting for auto in self._automatic.values())

    def _measure(self, *args: Any, **kwargs: Any) -> Distilled:
        """A forward pass that is measured, without compilation, which hides gradients inside the student."""
        self._call_student.returned = {}
        try:
            with torch.compiler.set_stance("force_eager"):
                return self._compare(*args, **kwargs)
        finally:
            self._call_student.returned = None

    def _compare(self, *args: Any, truth: Any, teacher_inputs: Example | None, **kwargs: Any) -> Distilled:
        teacher = self.teacher(*args, **kwargs) if teacher_inputs is None else call(self.teacher, teacher_inputs)
        output, student = self._call_student(*args, **kwargs)
        returned = self._call_student.returned
        measurement = Measurement()
        losses = {}
        for match in self.matches:
            target = gather(teacher, match.teacher)
            if returned is not None and match.auto is not None:
                losses[str(match)] = match.measured_loss(measurement, returned, target, truth)
            else:
                losses[str(match)] = match.loss(gather(student, match.student), target, truth)
        return Distilled(output, losses)

    @torch.no_grad()
    def _build(self, example: Example, truth: Any, teacher_inputs: Example | None) -> None:
        with evaluating(self):
            _, student = call(self._call_student, example)
            teacher = call(self.teacher, example if teacher_inputs is None else teacher_inputs)
            for match in self.matches:
                pair = gather(student, match.student), gather(teacher, match.teacher)
                needs = getattr(match.criterion, "needs_truth", False)
                if needs and truth is None:
                    what = f" ({needs})" if isinstance(needs, str) else ""
                    raise ValueError(f"{match} needs the ground truth{what}: pass truth=... here and in each call")
                match.build(*pair)
                with evaluating(match):  # what was just built too
                    value = match(*pair, truth)
                if not isinstance(value, Tensor) or value.ndim != 0:
                    shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                    raise ValueError(
                        f"the criterion of {match} gives {shape}, not a scalar tensor; reduce it, as .mean()"
                    )
                match.set_pace(*pair, truth)
