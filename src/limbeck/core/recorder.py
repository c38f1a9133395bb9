"""What the hooks of a ``Capture`` note while its model runs."""

from __future__ import annotations

from threading import get_ident
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from limbeck.core.unread import FeatureError

if TYPE_CHECKING:
    from limbeck.core.capture import Layer

Output = tuple[Any, list[tuple[Tensor, int]]]  # what a submodule returned, and the versions of its tensors then


class Recorder:
    """What the layers of a model returned in one forward.

    The hooks of the model hold it, so it does not hold the model: a copy of what ``torch.compile`` made begins with
    what is inside, whose hooks would then lead back to what is not there yet.

    Args:
        name: Of the model, in errors.
        wanted: Number of layers.
        truncate: Stop the model, by ``Complete``, as soon as every layer was read.
    """

    def __init__(self, name: str, wanted: int, truncate: bool):
        self.name, self.wanted, self.truncate = name, wanted, truncate
        self.outputs: dict[Layer, Output] | None = None  # None: not recording
        self.runs: dict[Layer, int] = {}  # so far in this forward, of layers that say which is read
        self._thread = 0  # that is recorded; the model may run in others meanwhile, as a validation that goes on beside

    def begin(self) -> None:
        """Record the thread that calls this; another one may not be recorded just now."""
        thread = get_ident()
        if self.outputs is not None and self._thread != thread:
            raise RuntimeError(
                f"{self.name} is read in another thread just now; give each thread a copy of its own, "
                "by copy.deepcopy() of the Distiller, Teacher or Capture"
            )
        self._thread = thread

    def store_input(self, layer: Layer, module: nn.Module, inputs: Any) -> None:
        """Hook before a submodule, whose first input is noted."""
        self.store(layer, module, inputs, inputs[0] if inputs else None)

    def store(self, layer: Layer, module: nn.Module, inputs: Any, output: Any) -> None:
        """Hook after a submodule, whose output is noted."""
        outputs = self.outputs
        compiling = torch.compiler.is_compiling()
        if outputs is None or (not compiling and get_ident() != self._thread):
            return
        if layer.run is not None:
            runs = self.runs[layer] = self.runs.get(layer, 0) + 1
            if runs != layer.run + 1:
                return
        if layer in outputs:
            raise FeatureError(
                f"layer {layer} of {self.name} ran twice in one forward; "
                "match one that runs once, such as the module around it, or say which run: Layer(path, run=0)"
            )
        # A compiled graph changes nothing in place that it gives out. An exception would break it, where dead-code
        # elimination drops the unused tail anyway.
        # Lists and dictionaries are copied: a later module may put something else into them.
        kept = output if isinstance(output, Tensor) else tree_map(lambda leaf: leaf, output)
        outputs[layer] = kept, [] if compiling else versions_of(output)
        if self.truncate and len(outputs) == self.wanted and not compiling:
            raise Complete


def versions_of(output: Any) -> list[tuple[Tensor, int]]:
    """The tensors of an output, and how often each was changed in place by now."""
    if isinstance(output, Tensor):
        return [] if output.is_inference() else [(output, output._version)]
    leaves = tree_leaves(output)
    inside = [
        value for leaf in leaves if not isinstance(leaf, Tensor) for value in getattr(leaf, "__dict__", {}).values()
    ]
    return [pair for leaf in [*leaves, *tree_leaves(inside)] if isinstance(leaf, Tensor) for pair in versions_of(leaf)]


class Complete(BaseException):  # not Exception: a model may catch those
    """Every layer was read; the rest of the forward is not needed."""
