"""Run a model once, and see what each of its submodules was given and gave back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from limbeck.core.modules import Example, call, evaluating

Versions = dict[int, int]  # of tensors, by their id: torch counts how often each was changed in place


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a submodule. It holds the tensors, so that the id of each stays its own."""

    path: str
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any
    versions_after: Versions  # of the tensors in the output, when it returned


class Trace(NamedTuple):
    """What a model returned, and the calls of all its submodules in the order in which they returned."""

    output: Any
    calls: list[Call]


def trace(model: nn.Module, example: Example) -> Trace:
    """Run a model once in eval mode, and list the calls of its submodules, its own among them.

    Gradients are as the caller has them. What is compiled or scripted is not seen.

    Args:
        model: Any module; its modes are restored, and no hook stays.
        example: What to call it with.

    >>> output, calls = trace(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.zeros(1, 2, 2))
    >>> [(call.path, tuple(call.output.shape)) for call in calls]
    [('0', (1, 4)), ('1', (1, 2)), ('', (1, 2))]
    """
    with evaluating(model), tracing(model) as calls:
        return Trace(call(model, example), calls)


@contextmanager
def tracing(model: nn.Module) -> Iterator[list[Call]]:
    """List the calls of a model's submodules while this is open, however the model is called."""
    calls: list[Call] = []

    def leave(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        calls.append(Call(paths[module], module, args, kwargs, output, _versions(output)))

    named = model.named_modules()
    paths = {module: path for path, module in named if not isinstance(module, torch.jit.ScriptModule)}  # takes no hooks
    hooks = [module.register_forward_hook(leave, with_kwargs=True) for module in paths]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def _versions(value: Any) -> Versions:
    tensors = (leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor) and not leaf.is_inference())
    return {id(tensor): tensor._version for tensor in tensors}
