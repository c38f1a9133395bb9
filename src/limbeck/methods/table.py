"""The methods by name, for command line, docs and benchmarks: which criterion, where it reads, what it weighs.

The library needs no names: whoever writes Python imports a criterion and puts it into a ``Match``.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from limbeck import criteria
from limbeck.core.loss_weights import EarlyDecay, LateStart, WarmUp
from limbeck.core.projectors import (
    MakeProjector,
    conv1x1,
    conv1x1_if_needed,
    conv_bn,
    conv_bn_relu,
    conv_bn_relu_if_positive,
    orthogonal,
)
from limbeck.methods.method import Method, OnLevels

PROJECTORS: dict[str, MakeProjector | None] = {
    "off": None,
    **{
        make.__name__: make
        for make in (conv1x1, conv1x1_if_needed, conv_bn, conv_bn_relu, conv_bn_relu_if_positive, orthogonal)
    },
}
SCHEDULES = {schedule.__name__: schedule for schedule in (EarlyDecay, LateStart, WarmUp)}

METHODS: Mapping[str, Method] = {
    "ChannelTransform": Method(
        criteria.ChannelTransform,
        "liu2023simple",
        "features, after a learned nonlinear map of the student's channels",
        takes_vectors=True,
    ),
    "KD": Method(
        criteria.KD,
        "hinton2015distilling",
        "softened class probabilities",
        "output",
        weight=1.0,
        published="temperature 4, 100 classes, batch 64 (0.9 beside 0.1 of the cross entropy)",
    ),
    "DKD": Method(
        criteria.DKD,
        "zhao2022decoupled",
        "probability of the true class, and the others among themselves",
        "output",
    ),
    "DIST": Method(
        criteria.DIST,
        "huang2022knowledge",
        "correlation of probabilities, by image and by class",
        "output",
        weight=2.0,
        published="temperature 1, 1,000 classes, batch 256; temperature 4 with 100",
    ),
    "NKD": Method(
        criteria.NKD,
        "yang2023knowledge",
        "true class, and the others among themselves",
        "output",
        weight=1.0,
        published="temperature 1, 1,000 classes, batch 256; with 100 others=3.5, temperature 3",
    ),
    "GuidedKD": Method(
        criteria.GuidedKD,
        "zhou2020channel",
        "class probabilities where the teacher is right",
        "output",
        weight=1.0,
        published="temperature 1, 1,000 classes, batch 256; 0.1 with 100, batch 128",
    ),
    "WTTM": Method(
        criteria.WTTM,
        "zheng2024knowledge",
        "class probabilities against a softened teacher's, weighed by how unsure that is",
        "output",
    ),
    "DeiT": Method(
        criteria.DeiT,
        "touvron2021training",
        "the teacher's class, with a head that the student has for it",
        "distillation-head",
        weight=1.0,
        published="1,000 classes, batch 1024 (0.5 beside 0.5 of the cross entropy)",
    ),
    "OFAKD": Method(
        criteria.OFAKD,
        "hao2023one",
        "class probabilities, also of exits along the student, of any architecture",
        "exits",
        weight=1.0,
        published="exponent 1.5, 1,000 classes, batch 512; 100 classes with exponent 1",
    ),
    "FitNet": Method(
        nn.MSELoss,
        "romero2015fitnets",
        "features, by mean squared error",
        projector=conv_bn_relu_if_positive,
        on_levels=OnLevels(projector=conv1x1_if_needed),
    ),
    "AttentionTransfer": Method(
        criteria.AttentionTransfer,
        "zagoruyko2017paying",
        "where the energy of a map lies",
        "stages",
        weight=1000.0,
        published="100 classes, batch 64, images of 32 px; its gradient falls as 1 / (H W)",
    ),
    "SimilarityPreserving": Method(
        criteria.SimilarityPreserving,
        "tung2019similarity",
        "which images of a batch look alike",
    ),
    "CIRKD": Method(
        criteria.CIRKD,
        "yang2022cross",
        "which positions look alike, across the images of a batch",
        weight=1.0,
        published="temperature 0.1, 19 classes, batch 16, maps of an eighth of 512x1024 px",
    ),
    "RKD": Method(
        criteria.RKD,
        "park2019relational",
        "distances and angles among the images of a batch",
    ),
    "OFD": Method(
        criteria.OFD,
        "heo2019comprehensive",
        "features before their activation, above a margin",
        "stages-before-activation",
        conv_bn,
    ),
    "ChannelDistillation": Method(
        criteria.ChannelDistillation,
        "zhou2020channel",
        "mean of each channel",
        "stages",
        conv_bn_relu_if_positive,
        6.0,
        published="1,000 classes, batch 256; 100, batch 128",
        on_levels=OnLevels(projector=conv1x1_if_needed),
    ),
    "ReviewKD": Method(
        criteria.ReviewKD,
        "chen2021distilling",
        "features fused from the deepest to the first, at several scales",
        "stages-together",
        weight=WarmUp(1.0),
        published="1,000 classes, batch 256; 0.6 to 8 with 100, by pair of networks",
    ),
    "CWD": Method(
        criteria.CWD,
        "shu2021channel",
        "where each channel looks",
        projector=conv_bn_relu_if_positive,
        on_levels=OnLevels(projector=conv1x1_if_needed),
    ),
    "MGD": Method(
        criteria.MGD,
        "yang2022masked",
        "features generated from a masked one",
        projector=conv1x1_if_needed,
        on_levels=OnLevels({"masked": 0.65, "over": "positions"}),
    ),
    "ViTKD": Method(
        criteria.ViTKD,
        "yang2022vitkd",
        "the first two blocks of transformers, and the last feature generated from a masked one",
        "shallow-and-deep",
    ),
    "PKD": Method(
        criteria.PKD, "cao2022pkd", "how each channel varies, whatever its scale", projector=conv1x1_if_needed
    ),
    "FGD": Method(
        criteria.FGD,
        "yang2022focal",
        "features, weighed by attention and by boxes; global context",
        projector=conv1x1_if_needed,
    ),
    "CrossKD": Method(
        criteria.CrossKD,
        "wang2024crosskd",
        "scores and boxes that the teacher's head makes of the student's features",
        "head",
    ),
    "DETRDistill": Method(
        criteria.DETRDistill,
        "chang2023detrdistill",
        "scores and boxes of queries, each with the teacher's that it fits best",
        "queries",
    ),
    "LD": Method(
        criteria.LD,
        "zheng2022localization",
        "where the sides of a box may lie, as distributions over bins, of heads that give them",
        "named",
    ),
    "ForegroundTransform": Method(
        criteria.ForegroundTransform, "liu2023simple", "as ChannelTransform, with less weight outside all boxes"
    ),
    "FKD": Method(criteria.FKD, "zhang2021improve", "features where attention lies; non-local relations"),
    "Cosine": Method(
        criteria.Cosine, "ranzinger2024radio", "direction and value of each position's feature", projector=conv1x1
    ),
}

FURTHER_PAPERS = {  # of what a run may use beside a method, by the name it has in Python
    "MSELoss": "romero2015fitnets",
    "orthogonal": "miles2024vkd",
    "standardise": "sun2024logit",
    "EarlyDecay": "zhou2020channel",
    "LateStart": "zhou2020channel",
    "slice-wise": "hamreras2026slice",
    "Tucker-2": "kim2016compression",
}
