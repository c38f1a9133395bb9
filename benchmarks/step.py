"""What distilling costs: a step, over a plain student step and a plain teacher forward, and the peak memory of each.

    python benchmarks/step.py --teacher resnet34 --student resnet18
    python benchmarks/step.py --teacher torchvision:deeplabv3_resnet50 --student torchvision:lraspp_mobilenet_v3_large \
        --size 512 --batch 2 --teacher-layer backbone.layer4 --student-layer backbone.16

Models are timm's, or segmenters as limbeck distill semantic takes them. 1.00 means that criterion, projector and hooks
cost no more than preparing the teacher saves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any, Literal

import timm
import torch
import torch.nn.functional as F
import tyro
from measure import DEVICE, Step, circumstances, interleaved, peak_memory, ratio
from torch import Tensor, nn

from limbeck import Distiller, Layer, Match, prepare_teacher
from limbeck.criteria import ChannelTransform
from limbeck.layers import last_feature
from limbeck.models import Inputs
from limbeck.segmenter_parts import before_classifier
from limbeck.segmenters import build_segmenter, is_segmenter
from limbeck.tasks.semantic import Semantic

STUDENT, TEACHER, DISTILLED = "student step", "teacher forward", "distilled step"
CLASSES = [str(index) for index in range(19)]  # as many as Cityscapes has


@dataclass(frozen=True)
class Pair:
    """Two models, and how they meet."""

    teacher: str = "resnet34"
    student: str = "resnet18"
    teacher_layer: str | None = None
    """The last feature map by default; of segmenters, what the classifier takes."""
    student_layer: str | None = None
    hidden: int | None = None
    """Width of the hidden layer of ChannelTransform; the teacher's channels by default."""
    teacher_dtype: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    batch: int = 8
    size: int = 224
    rounds: int = 15
    threads: int = 2


def step(pair: Pair, name: str) -> Step:
    torch.manual_seed(0)
    student, teacher = (build(model).to(DEVICE) for model in (pair.student, pair.teacher))
    images = torch.randn(pair.batch, 3, pair.size, pair.size, device=DEVICE)
    task_loss = segmentation_loss(pair) if is_segmenter(pair.student) else classification_loss(pair)
    if name == TEACHER:
        teacher.eval()
        return torch.no_grad()(partial(teacher, images))
    trained = student
    if name == DISTILLED:
        here = pair.student_layer or find_layer(student, pair.student, images)
        there = pair.teacher_layer or find_layer(teacher, pair.teacher, images)
        prepared = prepare_teacher(
            teacher,
            [there],
            example=(images,),
            dtype=torch.bfloat16 if pair.teacher_dtype == "bf16" else None,
            compile=pair.compile,
        )
        match = Match(here, there, ChannelTransform(pair.hidden), weight=1e-4)
        trained = Distiller(student, prepared, [match], example=(images,)).to(DEVICE)
        del teacher
    optimizer = torch.optim.SGD(trained.parameters(), lr=1e-4, momentum=0.9)

    def run() -> None:
        out = trained.train()(images)
        output, extra = (out, 0.0) if name == STUDENT else (out.output, out.loss)
        optimizer.zero_grad()
        (task_loss(output) + extra).backward()
        optimizer.step()

    return run


def build(name: str) -> nn.Module:
    return build_segmenter(name, CLASSES)[0] if is_segmenter(name) else timm.create_model(name)


def find_layer(model: nn.Module, name: str, images: Tensor) -> Layer:
    return before_classifier(model) if is_segmenter(name) else last_feature(model, images)


def classification_loss(pair: Pair) -> Callable[[Tensor], Tensor]:
    labels = torch.arange(pair.batch, device=DEVICE)
    return lambda output: F.cross_entropy(output, labels)


def segmentation_loss(pair: Pair) -> Callable[[Any], Tensor]:
    task = Semantic(CLASSES, Inputs(pair.size))
    mask = torch.randint(len(CLASSES), (pair.batch, pair.size, pair.size), device=DEVICE)
    return lambda output: task.loss(output, {"mask": mask})


def main(pair: Pair) -> None:
    torch.set_num_threads(pair.threads)
    print(circumstances())
    print(pair)
    times = interleaved({name: step(pair, name) for name in (STUDENT, TEACHER, DISTILLED)}, pair.rounds)
    for name in times:
        peak = peak_memory(partial(step, pair, name))
        print(f"{name:16} {1e3 * median(times[name]):8.1f} ms   peak above its weights {peak / 2**20:7.1f} MiB")
    print(f"{DISTILLED} / ({STUDENT} + {TEACHER}): {ratio(times, DISTILLED, STUDENT, TEACHER):.2f}")


if __name__ == "__main__":
    main(tyro.cli(Pair))
