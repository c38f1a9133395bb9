"""Why a feature could not be read, and what to write instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from limbeck.core.modules import find, is_compiled

if TYPE_CHECKING:
    from limbeck.core.capture import Layer


class FeatureError(RuntimeError, ValueError):
    """A model gives no feature there, or none to rely on: also a ValueError, which commands tell in one line."""


def why_missing(model: nn.Module, layer: Layer, hooked: nn.Module, runs: int, is_hooked: bool) -> str:
    """Why a layer gave nothing in a forward.

    Args:
        hooked: The module that was at its path when it was hooked.
        runs: How often it ran, where the layer says which run is read.
        is_hooked: Whether a hook of ours is still on the module that is at its path now.
    """
    name, module = type(model).__name__, find(model, layer.path)
    if module is not hooked:
        return (
            f"layer {layer} of {name} was a {type(hooked).__name__} when it was hooked and is another module now, "
            f"a {type(module).__name__}; replace modules (as convert_sync_batchnorm does) first"
        )
    if not is_hooked:
        return f"layer {layer} of {name} is not hooked any more (unhook, remove); make a new Capture or Distiller"
    if runs:
        return f"{layer.path} of {name} ran {runs} times in this forward, so run={layer.run} is not there"
    missing = f"layer {layer} of {name} did not run in this forward; match one that runs for these inputs"
    if isinstance(module, nn.ModuleList | nn.ModuleDict):
        inside = [f"{layer.path}.{key}".removeprefix(".") for key, _ in module.named_children()]
        return f"{missing}: a {type(module).__name__} only holds others, such as {inside[-1] if inside else 'none'}"
    if is_compiled(model):
        return (
            f"{missing}; a graph that was compiled before the layer was hooked never sees the hook: call "
            "torch.compiler.reset() first, or hand over the model before its first call"
        )
    return missing


def not_a_tensor(model: nn.Module, layer: Layer, output: Any) -> str:
    """That a layer gives something else, and how to read a tensor from it."""
    own = f"{layer.path!r}, input=True" if layer.input else repr(layer.path)
    return (
        f"layer {layer} of {type(model).__name__} gives a {type(output).__name__}, not a Tensor; "
        f"say how to read it, for example Layer({own}, read=lambda output: output{_entry(output)})"
    )


def what_was_read(model: nn.Module, layer: Layer, output: Any) -> str:
    """What a ``read`` was given, for one that failed."""
    keys = f" of {', '.join(map(repr, output))}" if isinstance(output, Mapping) else ""
    shape = f" {tuple(output.shape)}" if isinstance(output, Tensor) else ""
    return f"layer {layer} of {type(model).__name__}, whose read failed, gives a {type(output).__name__}{keys}{shape}"


def _entry(output: Any) -> str:
    """How a tensor in an object is written: behind the object's name."""
    if isinstance(output, Mapping):
        return next((f"[{key!r}]" for key, value in output.items() if isinstance(value, Tensor)), "[...]")
    if isinstance(output, tuple | list):
        return f"[{next((index for index, value in enumerate(output) if isinstance(value, Tensor)), 0)}]"
    names = [name for name, value in getattr(output, "__dict__", {}).items() if isinstance(value, Tensor)]
    return f".{names[0]}" if names else "[0]"
