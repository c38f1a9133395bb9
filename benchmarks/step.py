"""What distilling costs: a step, over a plain student step and a plain teacher forward, and the peak memory of each.

    python benchmarks/step.py --teacher resnet34 --student resnet18

Models are timm's. 1.00 means that criterion, projector and hooks cost no more than preparing the teacher saves.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Literal

import timm
import torch
import torch.nn.functional as F
import tyro
from measure import DEVICE, Step, circumstances, interleaved, peak_memory, ratio

from limbeck import Distiller, Match, prepare_teacher
from limbeck.criteria import ChannelTransform
from limbeck.layers import last_feature

STUDENT, TEACHER, DISTILLED = "student step", "teacher forward", "distilled step"


@dataclass(frozen=True)
class Pair:
    """Two timm models, and how they meet."""

    teacher: str = "resnet34"
    student: str = "resnet18"
    teacher_layer: str | None = None
    """The last feature map by default."""
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
    student, teacher = (timm.create_model(model).to(DEVICE) for model in (pair.student, pair.teacher))
    images = torch.randn(pair.batch, 3, pair.size, pair.size, device=DEVICE)
    labels = torch.arange(pair.batch, device=DEVICE)
    if name == TEACHER:
        teacher.eval()
        return torch.no_grad()(partial(teacher, images))
    trained = student
    if name == DISTILLED:
        here = pair.student_layer or last_feature(student, images)
        there = pair.teacher_layer or last_feature(teacher, images)
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
        (F.cross_entropy(output, labels) + extra).backward()
        optimizer.step()

    return run


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
