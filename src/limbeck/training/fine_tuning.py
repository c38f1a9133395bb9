"""A student that starts from trained weights: what was loaded into it, learning more slowly or not at all."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import nn

from limbeck.training.recipe import Budget


def freeze(model: nn.Module, loaded: Collection[str]) -> None:
    """Keep what was loaded as it is: its weights, and the statistics of its batch norms.

    Raises:
        ValueError: Nothing was loaded, or nothing else is left to train.
    """
    parameters = dict(model.named_parameters())
    if not loaded or not parameters.keys() - loaded:
        what = "nothing" if not loaded else "everything"
        raise ValueError(
            f"--freeze keeps what starts from trained weights, and {what} of {type(model).__name__} does: pass weights "
            "that leave something to train, such as a classifier's for other classes"
        )
    for name in loaded:
        parameters[name].requires_grad_(False)
    for path, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and f"{path}.weight" in loaded:
            module.register_forward_pre_hook(_evaluate)  # whoever calls train() on the model


def _evaluate(module: nn.Module, _: Any) -> None:
    module.eval()


def describe(model: nn.Module, loaded: Collection[str], budget: Budget) -> list[str]:
    """A line for the user on what learns how fast, where something was loaded."""
    if not loaded:
        return []
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    share = sum(sizes[name] for name in loaded) / sum(sizes.values())
    if not any(parameter.requires_grad for name, parameter in model.named_parameters() if name in loaded):
        return [f"{share:.0%} of the parameters start from trained weights and stay as they are"]
    slow, quick = budget.highest_rate * budget.loaded, budget.highest_rate
    return [
        f"{share:.0%} of the parameters start from trained weights, and learn at a rate of {slow:.3g}; what is new at "
        f"{quick:.3g}"
    ]
