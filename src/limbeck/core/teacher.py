"""The frozen teacher, which gives features and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from limbeck.core.capture import Capture, Layer
from limbeck.core.parts import inputs_of, part_to_compile


class Teacher(nn.Module):
    """A frozen model that gives the features of some of its layers, and nothing else.

    The model is no submodule: ``parameters()``, ``state_dict()``, ``train()`` and DDP pass it by, but ``.to()`` moves
    it. It is in eval mode and gradient-free, always.

    Args:
        model: Is put into eval mode and frozen.
        layers: Where to read.
        truncate: Stop after the last of these layers.
        compile: Compile the forward pass; the compiler then drops what the layers do not need. Of a model that takes
            lists of images, as detectors do, a part that takes none is compiled.
    """

    model: nn.Module

    def __init__(self, model: nn.Module, layers: Iterable[Layer], *, truncate: bool = True, compile: bool = False):
        super().__init__()
        self.__dict__["model"] = model.eval().requires_grad_(False)
        self.capture = Capture(model, layers, truncate=truncate)
        self.channels_last = False
        self.cast = False
        self.compiled = compile
        self._compiled: tuple[str, Callable[..., list[Tensor]]] | None = None  # path of a part, and what runs it

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> dict[Layer, Tensor]:
        """Features by layer, for inputs as the model takes them."""
        args, kwargs = tree_map_only(Tensor, self._prepare_input, (args, kwargs))
        device = self._example_weight().device.type
        with torch.autocast(device, enabled=torch.is_autocast_enabled(device) and not self.cast):
            # Inside a graph that somebody else compiles, the teacher is a part of it.
            separate = self.compiled and not torch.compiler.is_compiling()
            features = self._run_compiled(args, kwargs) if separate else self.capture(*args, **kwargs)[1].values()
            return dict(zip(self.capture.layers, features, strict=True))

    def _run_compiled(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
        if self._compiled is None:
            path = part_to_compile(self.model, [layer.path for layer in self.capture.layers], args, kwargs)
            capture = self.capture.of_part(path)
            self._compiled = path, torch.compile(lambda *args, **kwargs: list(capture(*args, **kwargs)[1].values()))
        path, run = self._compiled
        inputs = inputs_of(self.model, path, args, kwargs)
        if inputs is None:
            raise RuntimeError(f"{path} of {type(self.model).__name__} did not run in this forward")
        args, kwargs = tree_map_only(Tensor, self._prepare_input, inputs)
        return run(*args, **kwargs)

    def _prepare_input(self, tensor: Tensor) -> Tensor:
        if self.cast and tensor.is_floating_point():
            tensor = tensor.to(self._example_weight().dtype)
        if self.channels_last and tensor.ndim == 4:
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        return tensor

    def _example_weight(self) -> Tensor:
        return next(self.model.parameters(), torch.empty(0))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_compiled": None}  # or a deep copy would run the original's weights

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Teacher:
        # .to(), .cuda() and .half() call this on every submodule, which the model is not.
        self.model._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self
