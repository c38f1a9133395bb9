"""Read intermediate features of any ``nn.Module`` while it runs, without changing the module."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from limbeck.core.modules import find


@dataclass(frozen=True)
class Layer:
    """A place in a model: the dotted path of a submodule, and how to read a tensor from what it returns.

    >>> Layer("layer4")
    Layer(path='layer4', read=None, input=False)
    >>> str(Layer(""))  # the model itself, so its output
    'output'
    """

    path: str  # as nn.Module.get_submodule takes it; "" is the model's output
    read: Callable[[Any], Tensor] | None = None  # None: the submodule returns one tensor
    input: bool = False  # what the submodule takes, not what it returns: of a ReLU, the feature before activation

    def __str__(self) -> str:
        if self.input:
            return f"{self.path}:input"
        return (self.path or "output") + getattr(self.read, "part", "")  # which of several that a submodule returns


def as_layer(layer: Layer | str) -> Layer:
    return Layer(layer) if isinstance(layer, str) else layer


class Capture:
    """Call a model, and get the features of some of its layers beside its output.

    Hooks are registered here, in the constructor: a hook registered after a compiled model's first call never fires.

    Args:
        model: Any module. It keeps its mode, its output and its gradients.
        layers: Where to read. A layer must run exactly once in each forward.
        truncate: Stop the model as soon as every layer was read; the output is then ``None``.

    Raises:
        ValueError: The model has no such layer.
        RuntimeError: In a call, a layer did not run, ran twice, or was changed in place afterwards.
        TypeError: In a call, what a layer gives is no tensor.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten())
    >>> output, features = Capture(model, [Layer("0")])(torch.zeros(1, 3, 5, 5))
    >>> features[Layer("0")].shape, output.shape
    (torch.Size([1, 8, 3, 3]), torch.Size([1, 72]))
    """

    def __init__(self, model: nn.Module, layers: Iterable[Layer], *, truncate: bool = False):
        self.model = model
        self.layers = list(dict.fromkeys(layers))  # each once, in order
        self.truncate = truncate
        self._features: dict[Layer, Tensor] | None = None  # None: not recording
        self._versions: dict[Layer, int] = {}
        self.sources: dict[Layer, list[Tensor]] | None = None  # where set: all tensors that each submodule returned
        # A partial of a method, not a closure: copy.deepcopy(model) then records into its own copy.
        self._hooks = [
            find(model, layer.path).register_forward_pre_hook(partial(self._store_input, layer))
            if layer.input
            else find(model, layer.path).register_forward_hook(partial(self._store, layer))
            for layer in self.layers
        ]

    def remove(self) -> None:
        """Take the hooks off the model."""
        for hook in self._hooks:
            hook.remove()

    def of_part(self, path: str) -> Capture:
        """A capture of the same layers in a submodule that holds them all."""
        inside = [replace(layer, path=layer.path.removeprefix(path).removeprefix(".")) for layer in self.layers]
        return Capture(find(self.model, path), inside, truncate=self.truncate)

    def __call__(self, *args: Any, **kwargs: Any) -> tuple[Any, dict[Layer, Tensor]]:
        features: dict[Layer, Tensor] = {}
        self._features = features
        output = None
        try:
            output = self.model(*args, **kwargs)
        except _Complete:
            pass
        finally:
            self._features = None  # what activation checkpointing recomputes later is not recorded
        for layer in self.layers:
            if layer not in features:
                raise RuntimeError(
                    f"layer {layer} of {type(self.model).__name__} did not run in this forward; "
                    "match one that runs for these inputs"
                )
            feature = features[layer]
            # None: the hook ran in a compiled graph, which changes nothing in place that it gives out.
            version = self._versions.pop(layer, None)
            if version is not None and feature._version != version:
                raise RuntimeError(
                    f"layer {layer} of {type(self.model).__name__} was changed in place by a later module, such as "
                    "ReLU(inplace=True); match that module instead, or set its inplace=False"
                )
        return output, {layer: features[layer] for layer in self.layers}

    def _store_input(self, layer: Layer, module: nn.Module, inputs: Any) -> None:
        self._store(layer, module, inputs, inputs[0] if inputs else None)

    def _store(self, layer: Layer, module: nn.Module, inputs: Any, output: Any) -> None:
        features = self._features
        if features is None:
            return
        if layer in features:
            raise RuntimeError(
                f"layer {layer} of {type(self.model).__name__} ran twice in one forward; "
                "match one that runs once, such as the module around it"
            )
        feature = output if layer.read is None else layer.read(output)
        if not isinstance(feature, Tensor):
            raise TypeError(
                f"layer {layer} of {type(self.model).__name__} gives a {type(feature).__name__}, not a Tensor; "
                f"say how to read it, for example Layer({layer.path!r}, read=lambda output: output[0])"
            )
        features[layer] = feature
        if self.sources is not None:
            self.sources[layer] = [value for value in tree_leaves(output) if isinstance(value, Tensor)]
        if not torch.compiler.is_compiling():
            self._versions[layer] = feature._version
        # An exception would break a compiled graph, where dead-code elimination drops the unused tail anyway.
        if self.truncate and len(features) == len(self.layers) and not torch.compiler.is_compiling():
            raise _Complete


class _Complete(BaseException):  # not Exception: a model may catch those
    """Every layer was read; the rest of the forward is not needed."""
