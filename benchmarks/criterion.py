"""Every criterion beside its naive form: time, and peak memory above the inputs.

python benchmarks/criterion.py
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any, Literal, NamedTuple

import naive
import torch
import tyro
from measure import DEVICE, Step, circumstances, interleaved, peak_memory, ratio
from torch import Tensor, nn

from limbeck import criteria

CLASSES = 1000
FORMS = "ours", "naive"


class Inputs(NamedTuple):
    """What a criterion is called with; student and teacher are a tensor, or a tuple of them."""

    student: Any
    teacher: Any
    truth: tuple[Any, ...] = ()


class Setup(NamedTuple):
    """A criterion, what it compares, and the formula as the field writes it."""

    criterion: Callable[[], nn.Module]
    inputs: Callable[[Size], Inputs]
    naive: Callable[..., Tensor]


def feature(size: Size, channels: int, level: int = 0) -> Tensor:
    """A map, half as high and wide at each further level."""
    layout = torch.channels_last if size.channels_last else torch.contiguous_format
    shape = size.batch, channels, max(1, size.height >> level), max(1, size.width >> level)
    return torch.randn(shape, device=DEVICE).contiguous(memory_format=layout)


def maps(size: Size) -> Inputs:
    return Inputs(feature(size, size.student), feature(size, size.teacher))


def coarse_maps(size: Size) -> Inputs:
    """Maps a quarter as high and wide, as what takes all pairs of positions is given."""
    return maps(replace(size, height=max(1, size.height // 4), width=max(1, size.width // 4)))


def maps_of_three(size: Size) -> Inputs:
    """Maps of three images or more, without which there is no angle."""
    return maps(replace(size, batch=max(3, size.batch)))


def maps_and_boxes(size: Size) -> Inputs:
    """Maps, and four boxes in each image."""
    corners = torch.rand(size.batch, 4, 2, device=DEVICE) * 0.6
    boxes = torch.cat([corners, corners + 0.1 + 0.3 * torch.rand_like(corners)], dim=2)
    return maps(size)._replace(truth=(list(boxes),))


def levels(size: Size) -> Inputs:
    """Three maps, at full, half and quarter height and width."""
    return Inputs(*(tuple(feature(size, c, level) for level in range(3)) for c in (size.student, size.teacher)))


def blocks(size: Size) -> Inputs:
    """Three maps of one size."""
    return Inputs(*(tuple(feature(size, c) for _ in range(3)) for c in (size.student, size.teacher)))


def logits(size: Size) -> Inputs:
    student, teacher = (torch.randn(size.batch_logits, CLASSES, device=DEVICE) for _ in range(2))
    return Inputs(student, teacher)


def logits_and_labels(size: Size) -> Inputs:
    """Logits, and labels of which the teacher has every second right."""
    student, teacher, _ = logits(size)
    wrong = torch.arange(len(teacher), device=DEVICE) % 2
    return Inputs(student, teacher, ((teacher.argmax(1) + wrong) % CLASSES,))


SETUPS = {
    "ChannelTransform": Setup(criteria.ChannelTransform, maps, naive.channel_transform),
    "ForegroundTransform": Setup(criteria.ForegroundTransform, maps_and_boxes, naive.foreground_transform),
    "AttentionTransfer": Setup(criteria.AttentionTransfer, maps, naive.attention_transfer),
    "ChannelDistillation": Setup(criteria.ChannelDistillation, maps, naive.channel_distillation),
    "CIRKD": Setup(criteria.CIRKD, coarse_maps, naive.cirkd),
    "Cosine": Setup(criteria.Cosine, maps, naive.cosine),
    "CWD": Setup(criteria.CWD, maps, naive.cwd),
    "FGD": Setup(criteria.FGD, maps_and_boxes, naive.fgd),
    "FKD": Setup(partial(criteria.FKD, reduction=4, pool=8), maps, naive.fkd),  # as on the largest level
    "MGD": Setup(partial(criteria.MGD, 0.65, "positions"), maps, naive.mgd),  # as in detection
    "OFD": Setup(criteria.OFD, maps, naive.ofd),
    "PKD": Setup(criteria.PKD, maps, naive.pkd),
    "ReviewKD": Setup(criteria.ReviewKD, levels, naive.review_kd),
    "RKD": Setup(criteria.RKD, maps_of_three, naive.rkd),
    "SimilarityPreserving": Setup(criteria.SimilarityPreserving, maps, naive.similarity_preserving),
    "ViTKD": Setup(criteria.ViTKD, blocks, naive.vitkd),
    "KD": Setup(criteria.KD, logits, naive.kd),
    "DKD": Setup(criteria.DKD, logits_and_labels, naive.dkd),
    "DIST": Setup(criteria.DIST, logits, naive.dist),
    "NKD": Setup(criteria.NKD, logits_and_labels, naive.nkd),
    "GuidedKD": Setup(criteria.GuidedKD, logits_and_labels, naive.guided_kd),
    "WTTM": Setup(criteria.WTTM, logits, naive.wttm),
    "DeiT": Setup(criteria.DeiT, logits, naive.deit),
    "OFAKD": Setup(partial(criteria.OFAKD, 1.5), logits_and_labels, naive.ofa_kd),  # without an exit
}
Method = Literal[tuple(SETUPS)]


@dataclass(frozen=True)
class Size:
    """Feature maps and logits, float32."""

    methods: tuple[Method, ...] = tuple(SETUPS)
    batch: int = 8
    student: int = 256
    teacher: int = 256
    """Other channels than the student's suit only the methods that need no projector for it."""
    height: int = 100
    width: int = 168
    channels_last: bool = False
    batch_logits: int = 1024
    rounds: int = 9
    threads: int = 2


def parts(compared: Any) -> tuple[Tensor, ...]:
    return (compared,) if isinstance(compared, Tensor) else compared


def step(size: Size, method: str, form: str) -> Step:
    """Forward and backward, giving the loss and the gradients of the student's features; the same for both forms."""
    torch.manual_seed(0)
    setup = SETUPS[method]
    inputs = setup.inputs(size)
    criterion = setup.criterion()
    if hasattr(criterion, "build"):
        criterion.build(inputs.student, inputs.teacher)
    criterion.to(DEVICE)
    function = partial(setup.naive, criterion) if form == "naive" else criterion

    def run(inputs: Inputs) -> tuple[Tensor, list[Tensor]]:
        for tensor in parts(inputs.student):
            tensor.requires_grad_().grad = None
        criterion.zero_grad()
        torch.manual_seed(0)  # for a mask
        loss = function(inputs.student, inputs.teacher, *inputs.truth)
        loss.backward()
        return loss.detach(), [tensor.grad for tensor in parts(inputs.student)]

    run(setup.inputs(replace(size, batch=2, height=8, width=8, batch_logits=4)))  # libraries set up their own memory
    return partial(run, inputs)


def same(ours: tuple[Tensor, list[Tensor]], theirs: tuple[Tensor, list[Tensor]]) -> bool:
    """Whether losses and gradients agree but for rounding."""
    pairs = zip((ours[0], *ours[1]), (theirs[0], *theirs[1]), strict=True)
    return all(torch.dist(a, b) <= 1e-3 * b.norm() for a, b in pairs)


def row(size: Size, method: str) -> str:
    steps = {form: step(size, method, form) for form in FORMS}
    with torch.backends.cudnn.flags(allow_tf32=False):
        assert same(*(run() for run in steps.values())), f"{method}: the two forms compute different things"
    times = interleaved(steps, size.rounds)
    unit = sum(tensor.nbytes for tensor in parts(SETUPS[method].inputs(size).student))
    peaks = [peak_memory(partial(step, size, method, form)) for form in FORMS]
    cells = [method, f"{ratio(times, *FORMS):.2f}"]
    cells += [f"{1e3 * median(times[form]):.1f}" for form in FORMS]
    cells += [f"{peak / unit:.2f}" for peak in peaks] + [f"{unit / 2**20:.1f}"]
    return f"| {' | '.join(cells)} |"


def main(size: Size) -> None:
    torch.set_num_threads(size.threads)
    print(circumstances())
    print(size)
    print("Peaks are above the inputs, in units of the student's: its maps (three of ReviewKD, ViTKD) or its logits.\n")
    print("| method | time ours / naive | ours, ms | naive, ms | peak ours | peak naive | unit, MiB |")
    print("|---|---|---|---|---|---|---|")
    for method in size.methods:
        print(row(size, method), flush=True)


if __name__ == "__main__":
    main(tyro.cli(Size))
