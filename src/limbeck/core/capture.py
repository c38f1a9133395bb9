"""Read intermediate features of any ``nn.Module`` while it runs, without changing the module."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar
from weakref import finalize

import torch
from torch import Tensor, nn

from limbeck.core.modules import find
from limbeck.core.recorder import Complete, Output, Recorder
from limbeck.core.unread import FeatureError, not_a_tensor, what_was_read, why_missing

Model = TypeVar("Model", bound=nn.Module)


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
    label: str = field(default="", repr=False, compare=False)  # added to its name: which of several that are returned
    run: int | None = field(default=None, repr=False)  # of a submodule that runs several times in one forward, from 0

    def __post_init__(self) -> None:
        if not isinstance(self.path, str):
            raise TypeError(f"{self.path!r:.60} is no layer; name one by its path, as model.named_modules() gives it")
        if not (self.read is None or callable(self.read)):
            raise TypeError(f"read is {self.read!r}; it is a function, as lambda output: output[{self.read!r}]")
        if self.run is not None and self.run < 0:
            raise ValueError(f"run is {self.run}; runs are counted from 0")

    def __str__(self) -> str:
        which = "" if self.run is None or self.label else f"[{self.run}]"
        return (f"{self.path}:input" if self.input else self.path or "output") + self.label + which


def as_layer(layer: Layer | str) -> Layer:
    return layer if isinstance(layer, Layer) else Layer(layer)


class Capture:
    """Call a model, and get the features of some of its layers beside its output.

    Hooks are registered here, in the constructor: a hook registered after a compiled model's first call never fires.

    Args:
        model: Any module. It keeps its mode, its output and its gradients.
        layers: Where to read. A layer must run exactly once in each forward, unless it says which run is read.
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
        if isinstance(layers, Layer | str):
            raise TypeError(f"layers is {layers!r}; pass a list of them, as [Layer('layer4')]")
        self.layers = list(dict.fromkeys(layers))  # each once, in order
        if names := [layer for layer in self.layers if not isinstance(layer, Layer)]:
            raise TypeError(f"{names[0]!r:.60} is no Layer; features are given by Layer: pass Layer({names[0]!r:.60})")
        self.returned: dict[Layer, Any] | None = None  # where set: what each submodule returned
        self.recorder = Recorder(type(model).__name__, len(self.layers), truncate)
        self._hooked = {layer: find(model, layer.path) for layer in self.layers}  # all are found before one is hooked
        # A partial of a method, not a closure: copy.deepcopy(model) then records into its own copy.
        self._hooks = [
            module.register_forward_pre_hook(partial(self.recorder.store_input, layer))
            if layer.input
            else module.register_forward_hook(partial(self.recorder.store, layer))
            for layer, module in self._hooked.items()
        ]

    def remove_with(self, holder: object) -> None:
        """Take the hooks off when nobody holds this object any more, which alone calls the model by this capture."""
        finalize(holder, self.remove).atexit = False

    def remove(self) -> None:
        """Take the hooks off the model."""
        for hook in self._hooks:
            hook.remove()

    def of_part(self, path: str) -> Capture:
        """A capture of the same layers in a submodule that holds them all."""
        inside = [replace(layer, path=layer.path.removeprefix(path).removeprefix(".")) for layer in self.layers]
        return Capture(find(self.model, path), inside, truncate=self.recorder.truncate)

    def __call__(self, *args: Any, **kwargs: Any) -> tuple[Any, dict[Layer, Tensor]]:
        if not torch.compiler.is_compiling():
            self.recorder.begin()
        outputs: dict[Layer, Output] = {}
        self.recorder.outputs, self.recorder.runs = outputs, {}
        output = None
        try:
            output = self.model(*args, **kwargs)
        except Complete:
            pass
        finally:
            self.recorder.outputs = None  # what activation checkpointing recomputes later is not recorded
        if self.returned is not None:
            self.returned |= {layer: returned for layer, (returned, _) in outputs.items()}
        return output, {layer: self._read(layer, outputs) for layer in self.layers}

    def _read(self, layer: Layer, outputs: dict[Layer, Output]) -> Tensor:
        """The feature; not before the forward is over, or activation checkpointing would count what reading saves."""
        if layer not in outputs:
            raise FeatureError(self._why_missing(layer))
        output, versions = outputs[layer]
        try:
            feature = output if layer.read is None else layer.read(output)
        except Exception as error:
            error.add_note(what_was_read(self.model, layer, output))
            raise
        if not isinstance(feature, Tensor):
            raise TypeError(not_a_tensor(self.model, layer, feature))
        if _changed(feature, versions):
            raise FeatureError(
                f"layer {layer} of {type(self.model).__name__} was changed in place by a later module, such as "
                "ReLU(inplace=True); match that module instead, or set its inplace=False"
            )
        return feature

    def _why_missing(self, layer: Layer) -> str:
        module = find(self.model, layer.path)
        hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
        is_hooked = any(map(_is_ours, hooks))
        return why_missing(self.model, layer, self._hooked[layer], self.recorder.runs.get(layer, 0), is_hooked)


def _changed(feature: Tensor, versions: list[tuple[Tensor, int]]) -> bool:
    """Whether what a feature was read from was changed in place since."""
    changed = [tensor for tensor, version in versions if tensor._version != version]
    if not changed:
        return False
    # One that is a part of a tensor is changed with it; of one that was computed it is not known from which.
    parts = [tensor for tensor, _ in versions if _one_storage(tensor, feature)]
    return not parts or any(_one_storage(tensor, feature) for tensor in changed)


def _one_storage(one: Tensor, other: Tensor) -> bool:
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


def unhook(model: Model) -> Model:
    """Take off a model, and give back, what every ``Capture`` has hooked to it: to pickle, script or export it whole.

    Of a student when it is trained: ``unhook(distiller.student)``; of a deep copy of it too, as an average of its
    weights is. A Distiller or Capture of the model then raises when it is called.
    """
    for module in model.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            for key in [key for key, hook in hooks.items() if _is_ours(hook)]:
                del hooks[key]
    return model


def _is_ours(hook: Any) -> bool:
    return isinstance(hook, partial) and isinstance(getattr(hook.func, "__self__", None), Recorder)
