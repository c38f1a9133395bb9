"""Every public criterion, with features to try it on. A new criterion is a line here; test_contract.py has the laws."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from limbeck import criteria

MAPS = [(3, 4, 6, 6), (1, 4, 6, 6), (2, 4, 5, 3)]  # (B, C, H, W), with one sample, with odd height and width
TOKENS = [(3, 9, 4), (1, 9, 4), (2, 5, 4)]  # (B, N, D)
LOGITS = [(3, 5), (1, 5)]  # (B, K)


class Case(NamedTuple):
    """A criterion on features of one shape."""

    id: str  # begins with its name in limbeck.criteria
    criterion: Callable[[Tensor, Tensor], Callable[[Tensor, Tensor], Tensor]]  # made for a pair of features
    student: Callable[[], Tensor]
    teacher: Callable[[], Tensor]


def channel_transform(student: Tensor, teacher: Tensor) -> criteria.ChannelTransform:
    """One whose transform leaves nonnegative features as they are, so that its minimum is at student == teacher."""
    criterion = criteria.ChannelTransform()
    criterion.build(student, teacher)
    with torch.no_grad():
        for layer in (criterion.hidden, criterion.output):
            layer.weight.copy_(torch.eye(*layer.weight.shape))
            layer.bias.zero_()
    return criterion.to(student.dtype)


def kd(student: Tensor, teacher: Tensor) -> criteria.KD:
    return criteria.KD()


def random(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def positive(shape: tuple[int, ...], seed: int) -> Tensor:
    return 0.1 + torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def cases(name: str, criterion: Callable, feature: Callable, shapes: list[tuple[int, ...]]) -> list[Case]:
    return [
        Case(
            f"{name} {'x'.join(map(str, shape))}",
            criterion,
            lambda shape=shape: feature(shape, seed=0),
            lambda shape=shape: feature(shape, seed=1),
        )
        for shape in shapes
    ]


CRITERIA = [
    *cases("ChannelTransform", channel_transform, positive, MAPS + TOKENS),
    *cases("KD", kd, random, LOGITS),
]
