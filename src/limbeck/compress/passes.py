"""Passes of data through a network, in which what layers take and give is seen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from torch.utils.hooks import RemovableHandle

from limbeck.core.modules import Example, call, device_of, evaluating

Batches = Iterable[Example]  # gone over several times, in the same order
See = Callable[[Tensor, Tensor], None]  # what a layer takes, and what it gives


class EnoughError(Exception):
    """Ends a pass that has brought what is needed."""


def check_batches(data: Batches | None) -> None:
    """Refuse data that are used up by the first pass: each later one would see none, and nobody would be told."""
    if isinstance(data, Iterator):
        raise ValueError(
            f"data is a {type(data).__name__}, which can be gone over once, but data are gone over several times: pass "
            "a list of batches, or a DataLoader"
        )


@torch.no_grad()
def watch(model: nn.Module, sees: dict[str, See], batches: Batches) -> None:
    """Pass batches through a model in eval mode, and show each layer's input and output as they come."""
    hooks: list[RemovableHandle] = []
    for path, see in sees.items():
        hooks.append(model.get_submodule(path).register_forward_hook(_shown(see)))
    try:
        with evaluating(model):
            for batch in batches:
                call(model, on_device_of(model, batch))
    finally:
        for hook in hooks:
            hook.remove()


def _shown(see: See) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    def show(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        see(inputs[0], output)

    return show


@torch.no_grad()
def inputs_and_outputs(model: nn.Module, path: str, batch: Example, calls: int) -> list[tuple[Tensor, Tensor]]:
    """What a layer takes and gives for one batch in each of its calls, after the last of which the pass ends."""
    seen: list[tuple[Tensor, Tensor]] = []

    def keep(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        goes_on = len(seen) + 1 < calls  # then later layers may change them in place
        seen.append((inputs[0].clone(), output.clone()) if goes_on else (inputs[0], output))
        if not goes_on:
            raise EnoughError

    hook = model.get_submodule(path).register_forward_hook(keep)
    try:
        call(model, on_device_of(model, batch))
    except EnoughError:
        pass
    finally:
        hook.remove()
    return seen


def on_device_of(model: nn.Module, batch: Any) -> Any:
    """A batch with its tensors where the model is."""
    device = device_of(model)
    return tree_map_only(Tensor, lambda tensor: tensor.to(device), batch)


def norms_of(model: nn.Module) -> dict[str, nn.modules.batchnorm._BatchNorm]:
    """Batch norms that keep statistics, by path."""
    return {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats
    }
