"""Students with a head for the teacher beside that for the labels, as DeiT has it and timm's models have it."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from limbeck.core.capture import Layer

DISTILLATION_HEAD = "head_dist"  # what timm calls it


def distillation_head(module: nn.Module) -> Layer:
    """The head for the teacher, which is kept apart in training from now on: the network then returns a pair of scores.

    Raises:
        ValueError: It has no such head.
    """
    paths = [
        path
        for path, each in module.named_modules()
        if path.rpartition(".")[2] == DISTILLATION_HEAD and not isinstance(each, nn.Identity)
    ]
    if not has_two_heads(module) or not paths:
        raise ValueError(
            f"{type(module).__name__} has no distillation token with a head of its own, as timm's "
            "deit_tiny_distilled_patch16_224, levit_256 and swiftformer_s have it; take one of these as student, or "
            "compare the outputs, as KD does"
        )
    module.set_distilled_training(True)  # type: ignore[operator]
    return Layer(paths[0])


def has_two_heads(module: nn.Module) -> bool:
    """Whether it may return scores of two heads in training."""
    return hasattr(module, "set_distilled_training")


def class_scores(output: Any) -> Tensor:
    """The scores for the labels: the first of a pair, as it is given in training; in eval mode there is one, a mean."""
    scores: Tensor = output if isinstance(output, Tensor) else output[0]
    return scores
