"""What ``import limbeck`` gives, each from where it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import limbeck.criteria as criteria
from limbeck.compress.distill import distill_slices
from limbeck.compress.factorise import factorise
from limbeck.core.capture import Capture, Layer, unhook
from limbeck.core.distiller import Distilled, Distiller
from limbeck.core.loss_weights import EarlyDecay, LateStart, WarmUp
from limbeck.core.match import Match
from limbeck.core.projectors import (
    channels_first,
    class_token,
    conv1x1,
    conv1x1_if_needed,
    conv_bn,
    conv_bn_relu,
    conv_bn_relu_if_positive,
    first,
    orthogonal,
    pooled,
    tokens_to_map,
)
from limbeck.core.teacher import Teacher
from limbeck.teacher.prepare import prepare_teacher

if TYPE_CHECKING:
    from torch import nn

    from limbeck.tasks.predictor import Predictor


def load(run: str | Path) -> Predictor:
    """The student of a run with its preprocessing: ``limbeck.load("runs/a").predict("photo.jpg")``.

    Raises:
        ValueError: The folder holds no student.
    """
    from limbeck.commands.predict import load  # the library itself needs torch alone

    return load(run)


def load_compressed(model: nn.Module, run: str | Path) -> nn.Module:
    """The network of a run of ``limbeck compress``, of the one that was compressed as its own library makes it.

    Raises:
        ValueError: The run holds no compressed network, or one of another model.
    """
    from limbeck.models.compressed import load_compressed

    return load_compressed(model, run)


__all__ = [
    "Capture",
    "Distilled",
    "Distiller",
    "EarlyDecay",
    "LateStart",
    "Layer",
    "Match",
    "Teacher",
    "WarmUp",
    "channels_first",
    "class_token",
    "conv1x1",
    "conv1x1_if_needed",
    "conv_bn",
    "conv_bn_relu",
    "conv_bn_relu_if_positive",
    "criteria",
    "distill_slices",
    "factorise",
    "first",
    "load",
    "load_compressed",
    "orthogonal",
    "pooled",
    "prepare_teacher",
    "tokens_to_map",
    "unhook",
]
