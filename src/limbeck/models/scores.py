"""Whether a network gives scores for the classes of the data."""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck.core.modules import evaluating
from limbeck.models.build import FILE, source_of
from limbeck.models.model import Model

FORMS = {  # by task: what a model is called, and what it gives
    "classification": ("classifier", "(B, K)"),
    "semantic": ("segmenter", "(B, K, H, W)"),
}


def check_scores(name: str, model: Model, task: str) -> None:
    """Try a model that a function of the user makes; all others are made for the classes.

    Args:
        name: As the user gave it.
        model: Is run on an image in eval mode.
        task: In ``FORMS``.

    Raises:
        ValueError: It gives no scores, or not one for each class.
    """
    if source_of(name)[0] != FILE:
        return
    found = _channels(name, model, *FORMS[task])
    if found != len(model.classes):
        raise ValueError(
            f"{name} gives {found} scores, the data have {len(model.classes)} classes; let it take num_classes, or "
            "give as many"
        )


@torch.no_grad()
def _channels(name: str, model: Model, kind: str, form: str) -> int:
    """The number of scores that it gives for an image, or for each of its pixels."""
    image = model.inputs.example
    try:
        with evaluating(model.module):
            output = model.module(image)
    except Exception as error:
        error.add_note(f"raised by the model of {name} for an image {tuple(image.shape)}")
        raise
    try:
        scores = output if model.output.read is None else model.output.read(output)
    except TypeError as error:
        raise ValueError(f"{name}: {error}") from None
    if not isinstance(scores, Tensor):
        raise ValueError(
            f"{name} makes a model that gives a {type(scores).__name__}; a {kind} gives logits {form}: let it give "
            "those alone"
        )
    if scores.ndim != form.count(",") + 1:
        raise ValueError(f"{name} makes a model that gives {tuple(scores.shape)}; a {kind} gives logits {form}")
    return scores.shape[1]
