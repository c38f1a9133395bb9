"""Run a student beside a frozen teacher, and compare their features."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cache
from typing import Any, Literal, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from limbeck.core.auto_weight import BATCHES, AutoWeight
from limbeck.core.building import build_match, keeping_buffers, unfreezing
from limbeck.core.capture import Capture
from limbeck.core.checks import check_gradients, check_models, check_numbers, check_prepared
from limbeck.core.example import telling
from limbeck.core.features import Features, gather
from limbeck.core.first_steps import FirstSteps, check_unwrapped
from limbeck.core.layout import check_batch_first, check_layout
from limbeck.core.match import Match
from limbeck.core.matches import check_matches, share_ratio, tell_apart
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
        """The sum of the losses, to be added to the student's own; 0 of none."""
        return torch.stack(list(self.losses.values())).sum() if self.losses else torch.zeros(())


class Distiller(nn.Module):
    """A student, a frozen teacher, and the matches between them, called as the student is called.

    ``parameters()`` and ``state_dict()`` are the student's, the projectors' and the criteria's, never the teacher's.
    The example runs once, here, in eval mode: it builds what must be built, and tells mistakes before training starts.
    Wrap the Distiller, not the student, in DDP: projectors and criteria are trained too.

    Args:
        student: The model to train.
        teacher: Any module, which is frozen and stops after the last layer that a match reads; or a ``Teacher`` from
            ``prepare_teacher``.
        matches: What follows what; each belongs to one Distiller.
        example: Inputs to call the student with: a tuple, a dict of keyword arguments, or one tensor.
        truth, teacher_inputs: As in the calls to come, where these have them.
        example_mode: Of the student while the example runs; ``"train"`` where it gives other outputs than in eval mode,
            as GoogLeNet does, and these are read. Its buffers are kept.
        process_group: Of the processes that train this student, which agree on the weights that are ``"auto"``; by
            default all there are. Processes that train students of their own each pass a group of their own.

    Raises:
        ValueError: A layer does not exist, shapes do not fit, a match is in use already, a criterion gives the
            student no gradient, or the models share weights.
        RuntimeError: A layer did not run exactly once. In training: the student's feature has no gradient.
        TypeError: What a layer gives is no tensor.
    """

    matches: Sequence[Match]
    __call__: Callable[..., Distilled]

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        matches: Sequence[Match],
        *,
        example: Example,
        truth: Any = None,
        teacher_inputs: Example | None = None,
        example_mode: Literal["eval", "train"] = "eval",
        process_group: dist.ProcessGroup | None = None,
    ):
        super().__init__()
        matches = check_matches(matches)
        check_models(student, teacher.model if isinstance(teacher, Teacher) else teacher)
        if example_mode not in ("eval", "train"):
            raise ValueError(f"example_mode is {example_mode!r}; it is 'eval' or 'train'")
        tell_apart(matches)
        wanted = [layer for match in matches for layer in match.teacher]
        self.student = student
        self.matches = nn.ModuleList(matches)  # type: ignore[assignment]
        if self._automatic:
            share_ratio([match for match in matches if match.auto is not None], process_group)
            _leave_uncompiled()
        with ExitStack() as undo:  # what fails leaves the two models as they were
            self._call_student = Capture(student, [layer for match in matches for layer in match.student])
            undo.callback(self._call_student.remove)
            if isinstance(teacher, Teacher):
                check_prepared(teacher.capture.layers, wanted)
                self.teacher = teacher
            else:
                undo.callback(unfreezing(teacher))
                self.teacher = Teacher(teacher, wanted, truncate=False)
                undo.callback(self.teacher.capture.remove)
            self._build(example, truth, teacher_inputs, example_mode)
            check_unwrapped(student, self.matches)
            undo.pop_all()
        self._call_student.remove_with(self)
        self._first_steps: FirstSteps | None = FirstSteps(student, self.matches)
        if not isinstance(teacher, Teacher):
            self.teacher.capture.recorder.truncate = True  # it ran whole once, which tells of a layer that runs twice

    def __setstate__(self, state: dict[str, Any]) -> None:  # of a copy, or from a pickle
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._call_student.remove_with(self)
        if self._automatic:
            _leave_uncompiled()

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "student" and "_call_student" in self.__dict__:  # another student, or the same one compiled
            before, self._call_student = self._call_student, Capture(value, self._call_student.layers)
            before.remove()
            self._call_student.remove_with(self)
        if name == "teacher" and "teacher" in self._modules:
            raise AttributeError("a Distiller's teacher stays the same; make another Distiller for another teacher")
        super().__setattr__(name, value)

    def forward(self, *args: Any, truth: Any = None, teacher_inputs: Example | None = None, **kwargs: Any) -> Distilled:
        """Run teacher and student, and compare them.

        Args:
            args, kwargs: Inputs of the student, and of the teacher unless ``teacher_inputs`` is given.
            truth: Given to the criteria that need the ground truth.
            teacher_inputs: Inputs of the teacher where they differ from the student's, such as another image size.
        """
        if not torch.compiler.is_compiling() and self._first_steps and self.training and torch.is_grad_enabled():
            goes_on = self._first_steps.check(self.student, self.matches)
            self._first_steps = self._first_steps if goes_on else None
        run = self._compare
        if self._automatic and torch.is_grad_enabled():
            if torch.compiler.is_compiling():
                run = self._run_uncompiled if self._is_starting() else run
            elif self._is_due():
                run = self._measure
        return run(*args, truth=truth, teacher_inputs=teacher_inputs, **kwargs)

    def features(self, inputs: Example, teacher_inputs: Example | None = None) -> tuple[Features, Features]:
        """What the matches compare, of student and teacher; inputs are a tensor, a tuple, or arguments by name."""
        teacher = call(self.teacher, inputs if teacher_inputs is None else teacher_inputs)
        return call(self._call_student, inputs)[1], teacher

    def set_progress(self, progress: float) -> None:
        """Tell how far training has come, in [0, 1], to the matches whose weight is a function of it."""
        if not 0 <= progress <= 1:
            raise ValueError(f"progress is {progress}; it is the part of training that is done, from 0 to 1")
        for match in self.matches:
            match.set_progress(progress)

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
        if self.training and torch.is_grad_enabled():
            # The compiler would guard a weight, and compile anew whenever it changes.
            watched = (
                self.matches if torch.compiler.is_compiling() else [each for each in self.matches if not each.idle]
            )
            check_gradients({layer: student[layer] for match in watched for layer in match.student})
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

    def _replicate_for_data_parallel(self) -> Distiller:
        raise RuntimeError(
            "DataParallel copies modules in each step, hooks and all, so a Distiller cannot run under it; "
            "use DistributedDataParallel, by torchrun"
        )

    @torch.inference_mode(False)
    @torch.no_grad()
    def _build(self, example: Example, truth: Any, teacher_inputs: Example | None, mode: str) -> None:
        with evaluating(self), keeping_buffers(self.student):
            if mode == "train":
                self.student.train()
            with telling(example, "student", self.student):
                _, student = call(self._call_student, example)
            given, own, remedy = (example, "example", "; or what the teacher alone is called with as teacher_inputs")
            if teacher_inputs is not None:
                given, own, remedy = (teacher_inputs, "teacher_inputs", "")
            with telling(given, "teacher", self.teacher.model, own, remedy, shared=teacher_inputs is None):
                teacher = call(self.teacher, given)
            check_numbers("student", student)
            check_numbers("teacher", teacher)
            for layer, feature in student.items():
                check_layout(self.student, layer, feature)
                check_batch_first(self.student, layer, feature, example)
            for layer, feature in teacher.items():
                check_layout(self.teacher.model, layer, feature)
                check_batch_first(self.teacher.model, layer, feature, given)
            for match in self.matches:
                build_match(match, gather(student, match.student), gather(teacher, match.teacher), truth)


@cache  # each time would wrap it once more
def _leave_uncompiled() -> None:
    """Have the compiler leave alone what measures; not at import, since this loads it, which takes as long as torch."""
    Distiller._run_uncompiled = torch.compiler.disable(  # type: ignore[method-assign, no-untyped-call]
        Distiller._run_uncompiled, reason=UNCOMPILED
    )
