"""ChannelTransform beside its naive form: time, and peak memory above the inputs in feature maps.

python benchmarks/criterion.py
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from statistics import median

import torch
import torch.nn.functional as F
import tyro
from measure import DEVICE, Step, circumstances, interleaved, peak_memory, ratio
from torch import Tensor

from limbeck.criteria import ChannelTransform


@dataclass(frozen=True)
class Size:
    """A pair of feature maps, float32."""

    batch: int = 8
    student: int = 256
    teacher: int = 256
    height: int = 100
    width: int = 168
    channels_last: bool = False
    rounds: int = 9
    threads: int = 2


def naive(criterion: ChannelTransform, student: Tensor, teacher: Tensor) -> Tensor:
    """The same loss as it is written down: two 1x1 convolutions, a ReLU and a difference."""
    hidden = F.relu(F.conv2d(student, criterion.hidden.weight[:, :, None, None], criterion.hidden.bias))
    transformed = F.conv2d(hidden, criterion.output.weight[:, :, None, None], criterion.output.bias)
    return F.mse_loss(transformed, teacher, reduction="sum") / len(student)


def step(size: Size, form: str) -> Step:
    torch.manual_seed(0)
    layout = torch.channels_last if size.channels_last else torch.contiguous_format
    student, teacher = (
        torch.randn(size.batch, channels, size.height, size.width, device=DEVICE).contiguous(memory_format=layout)
        for channels in (size.student, size.teacher)
    )
    criterion = ChannelTransform()
    criterion.build(student, teacher)
    criterion.to(DEVICE)
    small = student[:1, :, :2, :2].clone(), teacher[:1, :, :2, :2].clone()
    function = partial(naive, criterion) if form == "naive" else criterion

    def run(student: Tensor, teacher: Tensor) -> None:
        student.grad = None
        criterion.zero_grad()
        function(student, teacher).backward()

    run(small[0].requires_grad_(), small[1])  # libraries set up their own memory
    return partial(run, student.requires_grad_(), teacher)


def main(size: Size) -> None:
    torch.set_num_threads(size.threads)
    print(circumstances())
    one_map = 4 * size.batch * size.student * size.height * size.width
    print(f"{size}: one student map is {one_map / 2**20:.1f} MiB")
    forms = ("naive", "ChannelTransform")
    times = interleaved({form: step(size, form) for form in forms}, size.rounds)
    for form in forms:
        peak = peak_memory(partial(step, size, form))
        print(f"{form:17} {1e3 * median(times[form]):8.1f} ms   peak {peak / one_map:.2f} maps")
    print(f"time, ChannelTransform / naive: {ratio(times, 'ChannelTransform', 'naive'):.2f}")


if __name__ == "__main__":
    main(tyro.cli(Size))
