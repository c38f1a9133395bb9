"""Where a segmenter has its class scores, the map before them, and the encoder that it shares with classifiers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.core.capture import Layer
from limbeck.core.trace import trace
from limbeck.data.inputs import ANY_SIZE


def logits_of(output: Any) -> Tensor:
    """The main logits (B, K, h, w) in what a segmenter returns: a tensor, torchvision's dict, or a ModelOutput."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping) and "out" in output:
        logits: Tensor = output["out"]
        return logits
    if hasattr(output, "logits"):
        logits = output.logits
        return logits
    raise TypeError(
        f"a segmenter returns logits (B, K, H, W), {{'out': logits}} or .logits, not {type(output).__name__}"
    )


def logits_at(output: Any, size: Sequence[int]) -> Tensor:
    """The main logits, brought to a size."""
    return at_size(logits_of(output), size)


def at_size(logits: Tensor, size: Sequence[int]) -> Tensor:
    if tuple(logits.shape[-2:]) == tuple(size):
        return logits
    return F.interpolate(logits, tuple(size), mode="bilinear", align_corners=False)


def find_encoder(model: nn.Module) -> str:
    """The path of the part that a segmenter shares with classifiers; empty where it has none by a usual name."""
    children = dict(model.named_children())
    return next((name for name in ("encoder", "backbone", "segformer") if name in children), "")


@torch.no_grad()
def before_classifier(model: nn.Module) -> Layer:
    """The last map before the classifier: what the last convolution takes whose channels are the output's.

    Where a dropout stands between, what that takes: a criterion would follow the noise.

    Raises:
        ValueError: There is none.
    """
    try:
        returned, calls = trace(model, torch.zeros(1, 3, ANY_SIZE, ANY_SIZE))
    except (AssertionError, RuntimeError) as error:
        raise ValueError(
            f"{type(model).__name__} does not run on an image of {ANY_SIZE}x{ANY_SIZE} pixels ({error}); a segmenter "
            "has to take images of any size"
        ) from None
    classes = logits_of(returned).shape[1]
    classifiers = [
        call
        for call in calls
        if isinstance(call.module, nn.Conv2d) and call.output.shape[1] == classes and not is_auxiliary(call.path)
    ]
    if not classifiers:
        raise ValueError(f"{type(model).__name__} has no convolution that makes its classes; name the layers yourself")
    last = classifiers[-1]
    dropouts = [call for call in calls if isinstance(call.module, nn.Dropout | nn.Dropout2d)]
    before = (dropout.path for dropout in dropouts if dropout.output is last.args[0])
    return Layer(next(before, last.path), input=True)


def is_auxiliary(path: str) -> bool:
    return any(name.startswith("aux") for name in path.split("."))
