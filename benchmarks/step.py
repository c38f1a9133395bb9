"""What distilling costs: a step, over a plain student step and a plain teacher forward, and the peak memory of each.

    python benchmarks/step.py --teacher resnet34 --student resnet18
    python benchmarks/step.py --teacher torchvision:deeplabv3_resnet50 --student torchvision:lraspp_mobilenet_v3_large \
        --size 512 --batch 2 --teacher-layer backbone.layer4 --student-layer backbone.16
    python benchmarks/step.py --teacher torchvision:retinanet/timm:resnet101 \
        --student torchvision:retinanet/timm:resnet50 --size 640 --batch 2

Models are timm's, or segmenters or detectors as limbeck distill takes them. 1.00 means that criterion, projector and
hooks cost no more than preparing the teacher saves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any, Literal, NamedTuple

import timm
import torch
import torch.nn.functional as F
import tyro
from measure import DEVICE, Step, circumstances, interleaved, peak_memory, ratio
from torch import Tensor, nn

from limbeck import Distiller, Layer, Match, prepare_teacher
from limbeck.criteria import ChannelTransform
from limbeck.models.build import Inputs
from limbeck.models.features import last_feature
from limbeck.tasks.detection.models import build_detector, is_detector, levels_of
from limbeck.tasks.semantic.models import build_segmenter, is_segmenter
from limbeck.tasks.semantic.parts import before_classifier
from limbeck.tasks.semantic.task import Semantic

STUDENT, TEACHER, DISTILLED = "student step", "teacher forward", "distilled step"
CLASSES = [str(index) for index in range(19)]  # as many as Cityscapes has
OBJECTS = [str(index) for index in range(80)]  # as many as COCO has


@dataclass(frozen=True)
class Pair:
    """Two models, and how they meet."""

    teacher: str = "resnet34"
    student: str = "resnet18"
    teacher_layer: str | None = None
    """The last feature map by default; of segmenters, what the classifier takes. Of detectors, always every level."""
    student_layer: str | None = None
    hidden: int | None = None
    """Width of the hidden layer of ChannelTransform; the teacher's channels by default."""
    channels_last: Literal["distilled", "both", "none"] = "distilled"
    """Which student is kept in the channels_last memory format: the distilled one, as limbeck distill does, beside a
    plain one as it comes; or both or none, so that they are alike."""
    teacher_dtype: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    batch: int = 8
    size: int = 224
    rounds: int = 15
    threads: int = 2


def step(pair: Pair, name: str) -> Step:
    torch.manual_seed(0)
    student, teacher = (build(model).to(DEVICE) for model in (pair.student, pair.teacher))
    work = work_of(pair)
    if name == TEACHER:
        teacher.eval()
        return torch.no_grad()(partial(teacher, *work.teacher_inputs))
    if pair.channels_last == "both" or (pair.channels_last == "distilled" and name == DISTILLED):
        student.to(memory_format=torch.channels_last)
    trained = student
    if name == DISTILLED:
        matches = matches_of(pair, student, teacher)
        prepared = prepare_teacher(
            teacher,
            [layer for match in matches for layer in match.teacher],
            example=work.teacher_inputs,
            dtype=torch.bfloat16 if pair.teacher_dtype == "bf16" else None,
            compile=pair.compile,
        )
        given = {"teacher_inputs": work.teacher_inputs}
        trained = Distiller(student, prepared, matches, example=work.inputs, **given).to(DEVICE)
        del teacher
    optimizer = torch.optim.SGD([p for p in trained.parameters() if p.requires_grad], lr=1e-4, momentum=0.9)

    def run() -> None:
        trained.train()
        if name == STUDENT:
            loss = work.loss(trained(*work.inputs))
        else:
            out = trained(*work.inputs, teacher_inputs=work.teacher_inputs)
            loss = work.loss(out.output) + out.loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return run


def build(name: str) -> nn.Module:
    if is_detector(name):
        return build_detector(name, OBJECTS)[0]
    return build_segmenter(name, CLASSES)[0] if is_segmenter(name) else timm.create_model(name)


def matches_of(pair: Pair, student: nn.Module, teacher: nn.Module) -> list[Match]:
    """ChannelTransform at every level of detectors' pyramids, and at one layer of other models."""
    if is_detector(pair.student):
        here, there = levels_of(student), levels_of(teacher)
        layers: list[tuple[Layer | str, Layer | str]] = [
            (here[s], there[s]) for s in sorted(here.keys() & there.keys())
        ]
    else:
        images = torch.randn(1, 3, pair.size, pair.size, device=DEVICE)
        find = before_classifier if is_segmenter(pair.student) else lambda model: last_feature(model, images)
        layers = [(pair.student_layer or find(student), pair.teacher_layer or find(teacher))]
    return [Match(here, there, ChannelTransform(pair.hidden), weight=1e-6) for here, there in layers]


class Work(NamedTuple):
    """What a step is given, and what it is to learn."""

    inputs: tuple[Any, ...]
    teacher_inputs: tuple[Any, ...]
    loss: Callable[[Any], Tensor]


def work_of(pair: Pair) -> Work:
    images = torch.randn(pair.batch, 3, pair.size, pair.size, device=DEVICE)
    if is_detector(pair.student):
        corners = torch.rand(pair.batch, 7, 2, device=DEVICE) * 0.6 * pair.size  # as many objects as COCO's images have
        boxes = torch.cat([corners, corners + (0.1 + 0.3 * torch.rand_like(corners)) * pair.size], dim=2)
        labels = torch.randint(1, len(OBJECTS), (pair.batch, 7), device=DEVICE)
        targets = [{"boxes": b, "labels": label} for b, label in zip(boxes, labels, strict=True)]
        pictures = list(images.sigmoid())
        return Work((pictures, targets), (pictures,), lambda losses: torch.stack(list(losses.values())).sum())
    if is_segmenter(pair.student):
        task = Semantic(CLASSES, Inputs(pair.size))
        mask = torch.randint(len(CLASSES), (pair.batch, pair.size, pair.size), device=DEVICE)
        return Work((images,), (images,), lambda output: task.loss(output, {"mask": mask}))
    labels = torch.arange(pair.batch, device=DEVICE)
    return Work((images,), (images,), lambda output: F.cross_entropy(output, labels))


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
