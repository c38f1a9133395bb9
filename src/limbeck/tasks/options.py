"""Options that are the same for every task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

from limbeck.core.match import Match
from limbeck.data.parts import HeldOut
from limbeck.data.problems import OnBadData
from limbeck.methods.method import OF_SCORES
from limbeck.methods.pairing import make_matches
from limbeck.methods.spelling import find_method, weight_of
from limbeck.models.model import Model

ProjectorName = Literal[
    "off", "conv1x1", "conv1x1_if_needed", "conv_bn", "conv_bn_relu", "conv_bn_relu_if_positive", "orthogonal"
]
DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class AnnotatedImages:
    """Where annotated images lie, which of them are measured on, and what becomes of bad ones."""

    data: Path
    val_data: Path | None = None
    split: HeldOut | None = None
    on_bad_data: OnBadData = "error"


@dataclass(frozen=True)
class TeacherOptions:
    """How the teacher is loaded, held and checked.

    Args:
        teacher_weights: A .safetensors or .pth file for the teacher, or "pretrained" for what timm or torchvision
            publish for it; a run folder brings its own.
        teacher_dtype: Precision in which the teacher's weights are held.
        teacher_compile: Compile the teacher with torch.compile.
        teacher_check: Evaluate the teacher first, and stop if it is no better than chance.
    """

    teacher_weights: str | None = None
    teacher_dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    teacher_compile: bool = False
    teacher_check: bool = True

    def recipe(self, *, knows_classes: bool = True) -> dict[str, Any]:
        """The arguments of a ``Recipe``; a teacher of other classes than the data's is not measured."""
        prepare = {"dtype": DTYPES[self.teacher_dtype], "compile": self.teacher_compile}
        return {"prepare": prepare, "teacher_check": self.teacher_check and knows_classes}


@dataclass(frozen=True)
class MatchOptions:
    """What follows what, and how it is compared.

    Args:
        method: A name that limbeck methods lists, with options as in KD:temperature=2,standardise=True; or FILE.py:NAME
            for a criterion of your own. May be given several times: all of them are used together. By default
            ChannelTransform.
        weight: Weight of the method's loss: a number; auto, which follows the gradients; or a schedule, as
            EarlyDecay:weight=6 or WarmUp:weight=1. By default what limbeck methods says. Of several methods, one for
            each, in their order.
        task_weight: Weight of the task's own loss: a number, 0 for learning from the teacher alone; or a schedule, as
            LateStart:weight=1,at=0.3.
        projector: What brings the student's channels to the teacher's; by default as limbeck methods says.
        student_layer: Dotted paths of the student's layers (see limbeck layers); by default those of the method.
        teacher_layer: Dotted paths of the teacher's layers, one for each of the student's.
    """

    method: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    weight: tyro.conf.UseAppendAction[tuple[float | str, ...]] = ()
    task_weight: float | str = 1.0
    projector: ProjectorName | None = None
    student_layer: tuple[str, ...] = ()
    teacher_layer: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.weight) not in (0, len(self.methods)):
            raise ValueError(
                f"{len(self.weight)} weights for {len(self.methods)} methods: write --weight once for each --method, "
                "or not at all"
            )

    @property
    def methods(self) -> tuple[str, ...]:
        return self.method or ("ChannelTransform",)

    @property
    def weight_of_task(self) -> float | Callable[[float], float]:
        """A number, or a function of progress."""
        weight = weight_of(self.task_weight)
        if isinstance(weight, str):
            raise ValueError(
                f"--task-weight {weight}: the task's weight is a number or a schedule; --weight can be auto"
            )
        return weight

    def matches(self, student: Model, teacher: Model, **options: Any) -> list[Match]:
        """The matches of every method; ``options`` as ``make_matches`` takes them.

        Of several methods, those that compare class scores read them where they do, whatever layers are named.
        """
        weights: tuple[float | str | None, ...] = self.weight or (None,) * len(self.methods)
        layers = {"student_layers": self.student_layer, "teacher_layers": self.teacher_layer}
        matches = []
        for method, weight in zip(self.methods, weights, strict=True):
            of_scores = len(self.methods) > 1 and find_method(method)[0].reads in OF_SCORES
            given = {} if of_scores else {**layers, **options}
            matches += make_matches(method, student, teacher, weight=weight, projector=self.projector, **given)
        return matches
