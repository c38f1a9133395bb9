"""The frozen teacher, which gives features and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from limbeck.core.capture import Capture, Layer
from limbeck.core.modules import set_training

Inputs = tuple[tuple[Any, ...], dict[str, Any]]  # positional, and by name


class Teacher(nn.Module):
    """A frozen model that gives the features of some of its layers, and nothing else.

    The model is no submodule: ``parameters()``, ``state_dict()``, ``train()`` and DDP pass it by, but ``.to()`` moves
    it. Its forward is in eval mode and gradient-free, whatever mode others have put it or parts of it into.

    Args:
        model: Is put into eval mode and frozen. What ``torch.export`` made keeps the mode it was exported in, and has
            no layer but its output, ``""``.
        layers: Where to read.
        truncate: Stop after the last of these layers.
        channels_last: Give the model its (B, C, H, W) inputs in the channels_last memory format.
        cast: Give the model its inputs in the precision of its weights, and run it so under autocast too.
        run: What runs the model instead of ``capture``: called with the teacher and its inputs, gives the features in
            the order of the layers. ``prepare_teacher(compile=True)`` compiles with it.
    """

    model: nn.Module
    __call__: Callable[..., dict[Layer, Tensor]]

    def __init__(
        self,
        model: nn.Module,
        layers: Iterable[Layer],
        *,
        truncate: bool = True,
        channels_last: bool = False,
        cast: bool = False,
        run: Callable[[Teacher, Inputs], list[Tensor]] | None = None,
    ):
        super().__init__()
        self.capture = Capture(model, layers, truncate=truncate)
        self.capture.remove_with(self)
        set_training(model, False)
        self.__dict__["model"] = model.requires_grad_(False)
        self._submodules = list(model.modules())  # walking through a large model in each step takes a millisecond
        self.channels_last = channels_last
        self.cast = cast
        self.run = run

    def __setstate__(self, state: dict[str, Any]) -> None:  # of a copy, or from a pickle
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.capture.remove_with(self)

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> dict[Layer, Tensor]:
        """Features by layer, for inputs as the model takes them."""
        args, kwargs = self.prepare_inputs((args, kwargs))
        weight = self._example_weight()
        device = "cpu" if weight.is_meta else weight.device.type  # the meta device knows no autocast
        autocast = torch.autocast(device, enabled=torch.is_autocast_enabled(device) and not self.cast)
        with autocast, self._evaluating():
            # Inside a graph that somebody else compiles, the teacher is a part of it.
            if self.run is None or torch.compiler.is_compiling():
                return self.capture(*args, **kwargs)[1]
            return dict(zip(self.capture.layers, self.run(self, (args, kwargs)), strict=True))

    def prepare_inputs(self, inputs: Inputs) -> Inputs:
        """Inputs of the model or of a part of it, in the precision and memory format that it wants."""
        prepared: Inputs = tree_map_only(Tensor, self._prepare_input, inputs)
        return prepared

    def _prepare_input(self, tensor: Tensor) -> Tensor:
        # A student that is held in low precision, as by FSDP2's policy, is given such inputs; its teacher need not be.
        if tensor.is_floating_point() and (self.cast or tensor.dtype in (torch.bfloat16, torch.float16)):
            tensor = tensor.to(self._example_weight().dtype)
        if self.channels_last and tensor.ndim == 4:
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        return tensor

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        # Someone may have called train() on the model, or the student's train() reaches a module that both share.
        training = [module for module in self._submodules if module.training]
        for module in training:
            module.training = False
        try:
            yield
        finally:
            for module in training:
                module.training = True

    def _example_weight(self) -> Tensor:
        return next(self.model.parameters(), torch.empty(0))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Teacher:
        """Move the model, which is no submodule, as ``.to()``, ``.cuda()`` and ``.half()`` ask, and keep its values.

        Raises:
            RuntimeError: It would lose them, as by ``to_empty()`` from the meta device.
        """

        def moved(tensor: Tensor) -> Tensor:
            result = fn(tensor)
            if tensor.is_meta and not result.is_meta:
                raise RuntimeError(
                    "the teacher is on the meta device, and no checkpoint of what holds it has its weights; "
                    "call teacher.to_empty(device=...) and teacher.load_state_dict(...) before it is handed over"
                )
            return result if result is tensor or result.is_meta else result.copy_(tensor)  # to_empty() gives it none

        self.model._apply(moved, recurse)  # type: ignore[no-untyped-call]
        return self
