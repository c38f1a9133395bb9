"""Every public criterion, with features to try it on. A new criterion is a line here; test_contract.py has the laws."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck import criteria
from limbeck.models.files import function_in
from tests.places import ROOT

OWN = function_in(ROOT / "examples" / "custom_criterion.py", "cosine_distance")
MAPS = [(3, 4, 6, 6), (1, 4, 6, 6), (2, 4, 5, 3)]  # (B, C, H, W), with one sample, with odd height and width
TOKENS = [(3, 9, 4), (1, 9, 4), (2, 5, 4)]  # (B, N, D)
QUERIES = [(3, 5, 7), (1, 4, 6)]  # (B, Q, 4 + K)
LOGITS = [(3, 5), (1, 5), (2, 4, 3, 1)]  # (B, K), and (B, K, H, W)


class Case(NamedTuple):
    """A criterion on features of one shape."""

    id: str  # begins with its name in limbeck.criteria
    criterion: Callable[[Tensor, Tensor], nn.Module]  # made for a pair of features
    student: Callable[[], Tensor]
    teacher: Callable[[], Tensor]
    truth: Callable[[Tensor], tuple[Any, ...]] = lambda teacher: ()  # what follows the two features
    minimum: float | None = 1e-12  # how near to 0 it comes at student == teacher; None: its minimum is not there
    exact: bool = True  # the gradient is that of the value, nothing being detached on purpose


def plain(make: Callable[[], nn.Module]) -> Callable[[Tensor, Tensor], nn.Module]:
    """For criteria without weights."""

    def criterion(student: Tensor, teacher: Tensor) -> nn.Module:
        made = make()
        if hasattr(made, "build"):
            made.build(student, teacher)
        return made

    return criterion


# Criteria with weights, such that these leave nonnegative features as they are: their minimum is at student == teacher.


def channel_transform(student: Tensor, teacher: Tensor) -> criteria.ChannelTransform:
    criterion = criteria.ChannelTransform()
    criterion.build(student, teacher)
    with torch.no_grad():
        for layer in (criterion.hidden, criterion.output):
            to_identity(layer)
    return criterion.to(student.dtype)


def foreground_transform(student: Tensor, teacher: Tensor) -> criteria.ForegroundTransform:
    criterion = criteria.ForegroundTransform(background=0.3)
    criterion.transform = channel_transform(student, teacher)
    return criterion


def mgd(student: Tensor, teacher: Tensor) -> criteria.MGD:
    criterion = criteria.MGD()
    criterion.build(student, teacher)
    to_identity(criterion.generator[0])
    to_identity(criterion.generator[2])
    return criterion.eval().to(student.dtype)  # nothing is masked


def fgd(student: Tensor, teacher: Tensor) -> criteria.FGD:
    torch.manual_seed(0)
    criterion = criteria.FGD(1, 0.5, 0.5, 0.05)
    criterion.build(student, teacher)
    nn.init.normal_(criterion.student_context.transform[-1].weight)
    criterion.teacher_context = copy.deepcopy(criterion.student_context)
    return criterion.to(student.dtype)


def fkd(student: Tensor, teacher: Tensor) -> criteria.FKD:
    torch.manual_seed(0)
    criterion = criteria.FKD(0.5, 1, 0.5)
    criterion.build(student, teacher)
    for layer in (criterion.map_feature, criterion.map_channels, criterion.map_positions, criterion.map_relations):
        to_identity(layer)
    nn.init.normal_(criterion.student_relations.norm.weight)
    criterion.teacher_relations = copy.deepcopy(criterion.student_relations)
    return criterion.to(student.dtype)


class Levels(nn.Module):
    """Give a criterion of several layers one map at three scales."""

    def __init__(self, criterion: nn.Module, student: Tensor, teacher: Tensor):
        super().__init__()
        self.criterion = criterion
        criterion.build(self.split(student), self.split(teacher))

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return self.criterion(self.split(student), self.split(teacher))

    def split(self, feature: Tensor) -> tuple[Tensor, ...]:
        return feature, F.avg_pool2d(feature, 2), feature.mean((2, 3), keepdim=True)


class Rest(nn.Module):
    """What a head makes of two maps: logits of 4 classes, and boxes around the origin."""

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        logits, sides = (each.flatten(2).mT for each in (first, second.exp()))
        return logits, torch.cat([-sides[..., :2], sides[..., 2:]], -1)


class Halves(nn.Module):
    """Give a criterion of two layers one feature twice, as a half of itself and as it is."""

    def __init__(self, criterion: nn.Module, student: Tensor, teacher: Tensor):
        super().__init__()
        self.criterion = criterion
        if hasattr(criterion, "build"):
            criterion.build(self.split(student), self.split(teacher))

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return self.criterion(self.split(student), self.split(teacher))

    def split(self, feature: Tensor) -> tuple[Tensor, ...]:
        return feature / 2, feature


class Predicted(nn.Module):
    """Give a criterion of queries tokens (B, Q, 4 + K) as their boxes and logits."""

    def __init__(self, **options: Any):
        super().__init__()
        self.criterion = criteria.DETRDistill(in_order, **options)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return self.criterion(self.split(student), self.split(teacher))

    def split(self, feature: Tensor) -> tuple[Tensor, ...]:
        return feature[..., 4:], feature[..., :4].sigmoid()


def in_order(cost: Tensor) -> tuple[Tensor, Tensor]:
    """Stands for scipy's assignment, which no compiler looks into."""
    return torch.arange(min(cost.shape)), torch.arange(min(cost.shape))


def review_kd(student: Tensor, teacher: Tensor) -> Levels:
    criterion = Levels(criteria.ReviewKD(), student, teacher)
    for fusion in criterion.criterion.fusions:
        for convolution, norm in (fusion.take, fusion.give):
            to_identity(convolution)
            norm.eps = 0  # so that it changes nothing in eval mode
        if fusion.attend is not None:
            nn.init.zeros_(fusion.attend.weight)
            with torch.no_grad():
                fusion.attend.bias.copy_(torch.tensor([1000.0, -1000.0]))  # all of its own, nothing of the deeper ones
    return criterion.eval().to(student.dtype)


def vitkd(student: Tensor, teacher: Tensor) -> nn.Module:
    torch.manual_seed(0)
    criterion = Thrice(criteria.ViTKD())
    criterion.criterion.build((student,) * 3, (teacher,) * 3)
    nn.init.normal_(criterion.criterion.token)
    return criterion.eval().to(student.dtype)


class Thrice(nn.Module):
    """Give a criterion of three layers one feature for all."""

    def __init__(self, criterion: nn.Module):
        super().__init__()
        self.criterion = criterion

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return self.criterion((student,) * 3, (teacher,) * 3)


def ofa_kd(student: Tensor, teacher: Tensor) -> criteria.OFAKD:
    torch.manual_seed(0)
    criterion = criteria.OFAKD(1.5, stage=3)
    criterion.build(student, teacher)
    return criterion.eval().to(student.dtype)


@torch.no_grad()
def to_identity(layer: nn.Linear | nn.Conv2d) -> None:
    nn.init.eye_(layer.weight) if layer.weight.ndim == 2 else nn.init.dirac_(layer.weight)
    if layer.bias is not None:
        layer.bias.zero_()


def random(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def positive(shape: tuple[int, ...], seed: int) -> Tensor:
    return 0.1 + torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def classes(teacher: Tensor) -> tuple[Tensor]:
    """What the teacher says, but wrong for the second image."""
    labels = teacher.argmax(1)
    labels[1:2] = (labels[1:2] + 1) % teacher.shape[1]
    return (labels,)


def boxes(teacher: Tensor) -> tuple[list[Tensor]]:
    """Two that overlap in the first image, none in the others."""
    first = torch.tensor([[0.1, 0.1, 0.5, 0.6], [0.3, 0.3, 0.4, 0.5]])
    return ([first, *[torch.zeros(0, 4)] * (len(teacher) - 1)],)


def cases(
    name: str, criterion: Callable, feature: Callable, shapes: list[tuple[int, ...]], **options: Any
) -> list[Case]:
    return [
        Case(
            f"{name} {'x'.join(map(str, shape))}",
            criterion,
            lambda shape=shape: feature(shape, seed=0),
            lambda shape=shape: feature(shape, seed=1),
            **options,
        )
        for shape in shapes
    ]


SEVERAL = [shape for shape in MAPS + TOKENS if shape[0] > 1]  # for criteria that relate images to each other
TRIPLES = [(3, 4, 6, 6), (4, 4, 5, 3), (3, 9, 4), (4, 6)]

CRITERIA = [
    *cases(OWN.__name__, lambda student, teacher: OWN, random, MAPS + TOKENS),  # a user's own, of examples/
    *cases("AttentionTransfer", plain(criteria.AttentionTransfer), random, MAPS + TOKENS),
    *cases("ChannelDistillation", plain(criteria.ChannelDistillation), random, MAPS + TOKENS),
    *cases("ChannelTransform", channel_transform, positive, MAPS + TOKENS),
    *cases("CIRKD", plain(partial(criteria.CIRKD, temperature=1)), random, MAPS + TOKENS),
    *cases("Cosine", plain(criteria.Cosine), random, MAPS + TOKENS),
    *cases("Cosine map", plain(partial(criteria.Cosine, over="map")), random, MAPS + TOKENS),
    *cases(
        "Cosine standardised", plain(partial(criteria.Cosine, standardise=True)), random, MAPS + TOKENS, minimum=None
    ),  # its minimum is at the standardised teacher
    *cases(
        "CrossKD",
        lambda student, teacher: Halves(criteria.CrossKD(Rest()), student, teacher),
        random,
        MAPS,
        minimum=None,
    ),  # it is where the aligned student is the teacher, and has a kink there
    *cases("CWD", plain(criteria.CWD), random, MAPS + TOKENS),
    *cases("DeiT", plain(criteria.DeiT), random, LOGITS, minimum=None),
    *cases("DETRDistill", lambda *_: Predicted(), random, QUERIES, minimum=None),  # a cross entropy's is not 0
    *cases("DETRDistill softmax", lambda *_: Predicted(softmax=True), random, QUERIES, minimum=None),
    *cases("DIST", plain(criteria.DIST), random, [(3, 5), (2, 4, 3, 1)], minimum=1e-5),  # its eps keeps it from 0
    *cases("DKD", plain(criteria.DKD), random, LOGITS, truth=classes),
    *cases("FGD", fgd, random, MAPS, truth=boxes),
    *cases("FKD", fkd, random, MAPS, exact=False),  # its mask of attention is taken as given
    *cases("ForegroundTransform", foreground_transform, positive, MAPS, truth=boxes),
    *cases("GuidedKD", plain(criteria.GuidedKD), random, LOGITS, truth=classes),
    *cases("KD", plain(criteria.KD), random, LOGITS),
    *cases("LD", plain(criteria.LD), random, [(3, 8, 6, 6), (1, 12, 5, 3), (2, 5, 8)]),
    *cases("LD inside", plain(partial(criteria.LD, inside=True)), random, [(3, 8, 6, 6)], truth=boxes),
    *cases("MGD", mgd, positive, MAPS),
    *cases("NKD", plain(criteria.NKD), random, LOGITS, truth=classes, minimum=None),
    *cases("OFAKD", plain(partial(criteria.OFAKD, 1.5)), random, LOGITS, truth=classes, minimum=None),
    *[
        Case(
            f"OFAKD exit {'x'.join(map(str, shape))}",
            ofa_kd,
            lambda shape=shape: random(shape, seed=0),
            lambda shape=shape: random((shape[0], 5), seed=1),
            truth=classes,
            minimum=None,
        )
        for shape in [(3, 4, 6, 6), (1, 4, 5, 3), (2, 197, 4), (1, 16, 8)]
    ],
    *cases("OFD", plain(criteria.OFD), random, MAPS + TOKENS),
    *cases("PKD", plain(criteria.PKD), random, MAPS + TOKENS),
    *cases("ReviewKD", review_kd, positive, MAPS),
    *cases("RKD", plain(criteria.RKD), random, TRIPLES),
    *cases("SimilarityPreserving", plain(criteria.SimilarityPreserving), random, SEVERAL),
    *cases("ViTKD", vitkd, random, MAPS, minimum=None),  # of masked positions something is generated
    *cases("WTTM", plain(criteria.WTTM), random, LOGITS, minimum=None),  # it is at a softened teacher
]
