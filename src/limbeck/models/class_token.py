"""Whether a transformer gives its output by its class token alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from limbeck.core.capture import Layer
from limbeck.core.modules import evaluating, find
from limbeck.core.projectors import tokens_to_map


def gives_by_class_token(model: nn.Module, image: Tensor, last: Layer, output: Layer) -> bool:
    """Whether the patch tokens of the last feature say nothing of the output, so that no loss trains them.

    They are made nan for one image: what takes them, even with a weight of 0 as heads have at first, becomes nan, too.

    Args:
        model: Any network; its modes are restored.
        image: What to call it with.
        last: Its last spatial feature.
        output: How its scores are read.
    """
    if not (isinstance(last.read, tokens_to_map) and last.read.prefix):
        return False
    prefix = last.read.prefix

    def without_patches(module: nn.Module, args: Any, tokens: Tensor) -> Tensor:
        return torch.cat([tokens[:, :prefix], torch.full_like(tokens[:, prefix:], torch.nan)], 1)

    hook = find(model, last.path).register_forward_hook(without_patches)
    try:
        with evaluating(model), torch.no_grad():
            returned = model(image)
    finally:
        hook.remove()
    scores = returned if output.read is None else output.read(returned)
    return isinstance(scores, Tensor) and bool(scores.isfinite().all())  # a detector gives a list
