"""What is done with any module: find a part of it, call it, have it in eval mode for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

Example = tuple[Any, ...] | Mapping[str, Any] | Tensor  # what to call a model with: positional, by name, or one tensor


def find(model: nn.Module, path: str) -> nn.Module:
    """The submodule at a dotted path; ``ValueError`` with the nearest paths where there is none."""
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError(
            f"a {type(model).__name__} runs outside Python, where no layer is read; pass what was scripted or traced"
        )
    try:
        return model.get_submodule(path)
    except AttributeError:
        names = [name for name, _ in model.named_modules() if name]
        nearest = get_close_matches(path, names, n=3, cutoff=0.4)
        hint = f"nearest: {', '.join(nearest)}" if nearest else f"its first: {', '.join(names[:5]) or 'none'}"
        raise ValueError(f"{type(model).__name__} has no layer {path!r}; {hint}") from None


def call(model: Callable[..., Any], example: Example) -> Any:
    """Call a model with example inputs: positional, by name, or one tensor.

    >>> call(max, (3, 5)), call(dict, {"a": 1})
    (5, {'a': 1})
    """
    if isinstance(example, Tensor):
        return model(example)
    return model(**example) if isinstance(example, Mapping) else model(*example)


def device_of(model: nn.Module) -> torch.device:
    """Where the parameters of a model are."""
    return next(model.parameters()).device


def set_training(model: nn.Module, training: bool) -> None:
    """``train()``, also of a model that holds what ``torch.export`` made, which stays as it was exported."""
    try:
        model.train(training)
    except NotImplementedError:
        for module in model.modules():
            module.training = training


def is_compiled(model: nn.Module) -> bool:
    """Whether a part of it was given to ``torch.compile``, or compiled by ``compile()``."""
    parts = model.modules()
    return any(hasattr(part, "_orig_mod") or part._compiled_call_impl is not None for part in parts)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Have a model in eval mode, so that it learns nothing from a trial; afterwards every module has its own mode.

    Modes change by ``train()``, since a module may do more there than set ``training``, such as merge its weights.
    """
    modes = {module: module.training for module in model.modules()}  # what holds others before what it holds
    set_training(model, False)
    try:
        yield
    finally:
        for module, training in modes.items():
            if module.training != training:
                set_training(module, training)
        for module, training in modes.items():
            module.training = training  # also where a train() has a mind of its own
