"""Where transformers of the DETR family have their maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from limbeck.core.capture import Layer
from limbeck.core.modules import evaluating, find
from limbeck.core.trace import tracing
from limbeck.tasks.detection.pyramids import MULTIPLE

TRIED_AT = (256, 224)  # pixels, height and width, of the image with which a model is tried
WRAPPED = ("backbone", "conv_encoder", "model", "_backbone")  # what an image backbone is called, by what wraps it


@dataclass(frozen=True)
class map_of:  # noqa: N801 - it is used as a function: Layer("model.model.encoder", read=map_of(0))
    """Read the map of this index among those that a submodule of transformers returns."""

    index: int

    def __call__(self, output: Any) -> Tensor:
        read: Tensor = output[0][self.index]
        return read


def levels_of_transformer(model: nn.Module) -> dict[int, Layer]:
    """The maps (B, C, H, W) of a detector by their stride in pixels, from the finest on.

    They are what its encoder gives; of an encoder that gives tokens, whose grid cannot be known from them, what it is
    given: the backbone's maps in the encoder's width. None where there are no maps.
    """
    backbone = _outer_backbone(model)
    with tracing(model) as traced:
        run_on_noise(model.model)
    calls = [call for call in traced if not call.path.startswith(f"{backbone}.")]
    levels: dict[int, Layer] = {}
    for call in calls:
        if call.path.rpartition(".")[2] == "encoder" and isinstance(call.output[0], list | tuple):
            strides = map(_stride, call.output[0])
            levels |= {s: Layer(call.path, map_of(index), label=f"/{s}") for index, s in enumerate(strides)}
    if not levels:
        maps = [leaf for call in calls if call.path == backbone for leaf in tree_leaves(call.output)]
        of_maps = {
            call.path: call.output
            for call in calls
            if call.args and any(call.args[0] is each for each in maps)
            if isinstance(call.output, Tensor) and call.output.dim() == 4
        }
        outermost = [path for path in of_maps if path.rpartition(".")[0] not in of_maps]
        levels = {_stride(of_maps[path]): Layer(path) for path in outermost}
    return dict(sorted(levels.items()))


def _stride(features: Tensor) -> int:
    return round(TRIED_AT[0] / features.shape[2])


def find_backbone(model: nn.Module) -> str:
    """The path of the image backbone, without what transformers wraps it in; empty where it has none by a usual name.

    It is a model of its own, so its tensors are called as in the files of its classifier.
    """
    path = _outer_backbone(model)
    while path:
        children = dict(find(model, path).named_children())
        inner = next((name for name in WRAPPED if name in children), None)
        if inner is None:
            break
        path = f"{path}.{inner}"
    return path


def _outer_backbone(model: nn.Module) -> str:
    paths = [path for path, _ in model.named_modules()]
    names = ("backbone", "conv_encoder", "vit")
    return next((path for name in names for path in paths if path.rpartition(".")[2] == name), "")


@torch.no_grad()
def run_on_noise(model: Any, **given: Tensor) -> Any:
    """The output for one image of noise, always the same, in eval mode."""
    noise = torch.rand(1, 3, *TRIED_AT, generator=torch.Generator().manual_seed(0))
    try:
        with evaluating(model):
            output = model(pixel_values=noise.to(model.device, model.dtype), **given)
    except (AssertionError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"{type(model).__name__} does not run on an image of {TRIED_AT[0]}x{TRIED_AT[1]} pixels "
            f"({error}); a detector has to take images of any size that is a multiple of {MULTIPLE}"
        ) from None
    if not all(isinstance(getattr(output, name, None), Tensor) for name in ("logits", "pred_boxes")):
        raise ValueError(f"{type(model).__name__} gives no logits and pred_boxes, as DETR and its kind do")
    return output
