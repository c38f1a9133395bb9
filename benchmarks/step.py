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

import torch
import torch.nn.functional as F
import tyro
from measure import DEVICE, Step, circumstances, interleaved, peak_memory, ratio
from torch import Tensor

from limbeck import Distiller, Layer, Match, prepare_teacher
from limbeck.criteria import ChannelTransform
from limbeck.data.inputs import Inputs
from limbeck.models.model import Model
from limbeck.tasks import task_kind_of
from limbeck.tasks.kind import TaskKind
from limbeck.tasks.semantic.task import Semantic

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
STUDENT, TEACHER, DISTILLED = "student step", "teacher forward", "distilled step"
CLASSES = {  # as many as ImageNet, Cityscapes and COCO have
    task: [str(index) for index in range(count)]
    for task, count in {"classification": 1000, "semantic": 19, "detection": 80}.items()
}


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
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of all three: under autocast, as limbeck distill --precision runs them; fp16 without a scaler of the loss."""
    teacher_dtype: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    batch: int = 8
    size: int = 224
    rounds: int = 15
    threads: int = 2


def step(pair: Pair, name: str) -> Step:
    torch.manual_seed(0)
    autocast = torch.autocast(DEVICE, DTYPES[pair.precision], enabled=pair.precision != "fp32")
    models = [build(name) for name in (pair.student, pair.teacher)]
    matches = matches_of(pair, *models)  # found on the CPU, where the example is
    student, teacher = (model.module.to(DEVICE) for model in models)
    work = work_of(pair)
    if name == TEACHER:
        teacher.eval()
        return autocast(torch.no_grad()(partial(teacher, *work.teacher_inputs)))
    if pair.channels_last == "both" or (pair.channels_last == "distilled" and name == DISTILLED):
        student.to(memory_format=torch.channels_last)
    trained = student
    if name == DISTILLED:
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
        with autocast:
            if name == STUDENT:
                loss = work.loss(trained(*work.inputs))
            else:
                out = trained(*work.inputs, teacher_inputs=work.teacher_inputs)
                loss = work.loss(out.output) + out.loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return run


def build(name: str) -> Model:
    kind = kind_of(name)
    return kind.build(full(name), CLASSES[kind.name])


def kind_of(name: str) -> TaskKind:
    return task_kind_of(full(name))


def full(name: str) -> str:
    return name if ":" in name else f"timm:{name}"


def matches_of(pair: Pair, student: Model, teacher: Model) -> list[Match]:
    """ChannelTransform at every level of detectors' pyramids, and at one layer of other models."""
    if student.levels:
        common = sorted(student.levels.keys() & teacher.levels.keys())
        layers: list[tuple[Layer | str, Layer | str]] = [
            (student.levels[stride], teacher.levels[stride]) for stride in common
        ]
    else:
        layers = [(pair.student_layer or student.last_map, pair.teacher_layer or teacher.last_map)]
    return [Match(one, other, ChannelTransform(pair.hidden), weight=1e-6) for one, other in layers]


class Work(NamedTuple):
    """What a step is given, and what it is to learn."""

    inputs: tuple[Any, ...]
    teacher_inputs: tuple[Any, ...]
    loss: Callable[[Any], Tensor]


def work_of(pair: Pair) -> Work:
    images = torch.randn(pair.batch, 3, pair.size, pair.size, device=DEVICE)
    task = kind_of(pair.student).name
    if task == "detection":
        corners = torch.rand(pair.batch, 7, 2, device=DEVICE) * 0.6 * pair.size  # as many objects as COCO's images have
        boxes = torch.cat([corners, corners + (0.1 + 0.3 * torch.rand_like(corners)) * pair.size], dim=2)
        labels = torch.randint(1, len(CLASSES[task]), (pair.batch, 7), device=DEVICE)
        targets = [{"boxes": b, "labels": label} for b, label in zip(boxes, labels, strict=True)]
        pictures = list(images.sigmoid())
        return Work((pictures, targets), (pictures,), lambda losses: torch.stack(list(losses.values())).sum())
    if task == "semantic":
        loss = Semantic(CLASSES[task], Inputs()).loss
        mask = torch.randint(len(CLASSES[task]), (pair.batch, pair.size, pair.size), device=DEVICE)
        return Work((images,), (images,), lambda output: loss(output, {"mask": mask}))
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
