"""Feature distillation for PyTorch: make a small vision model learn from a big one."""

from limbeck import criteria
from limbeck.capture import Capture, Layer
from limbeck.distiller import Distilled, Distiller
from limbeck.match import Match
from limbeck.projectors import channels_first, conv1x1, first, tokens_to_map
from limbeck.teacher import Teacher, prepare_teacher

__all__ = [
    "Capture",
    "Distilled",
    "Distiller",
    "Layer",
    "Match",
    "Teacher",
    "channels_first",
    "conv1x1",
    "criteria",
    "first",
    "prepare_teacher",
    "tokens_to_map",
]
