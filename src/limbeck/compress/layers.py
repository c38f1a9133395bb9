"""Which layers of a network can be factorised, and why the others stay whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from torch import Tensor, nn


def weight_of(layer: nn.Module) -> Tensor:
    """The weight of a layer as (groups, outputs, inputs, kernel height, kernel width)."""
    assert isinstance(layer.weight, Tensor)
    if isinstance(layer, nn.Conv2d):
        outputs, inputs, height, width = layer.weight.shape
        return layer.weight.view(layer.groups, outputs // layer.groups, inputs, height, width)
    matrix = layer.weight.t() if is_conv1d(layer) else layer.weight
    return matrix[None, :, :, None, None]


def bias_of(layer: nn.Module) -> Tensor | None:
    """The bias (outputs) of a layer, where it has one."""
    bias = layer.bias
    assert bias is None or isinstance(bias, Tensor)
    return bias


def is_conv1d(layer: nn.Module) -> bool:
    """Whether it is GPT-2's ``Conv1D``, a linear layer with its weight transposed; without importing transformers."""
    return type(layer).__name__ == "Conv1D" and type(layer).__module__ == "transformers.pytorch_utils"


def layers_of(model: nn.Module, keep: tuple[str, ...] = ()) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """The layers that can be factorised by path, and the reason for each layer with a matrix that cannot.

    Args:
        model: Whose layers.
        keep: Paths that stay whole, with all below.
    """
    owners = Counter(
        id(parameter) for module in model.modules() for parameter in module.parameters(recurse=False)
    )  # how many modules hold a parameter
    found: dict[str, nn.Module] = {}
    whole: dict[str, str] = {}
    for path, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if not isinstance(weight, Tensor) or weight.ndim < 2 or isinstance(module, nn.Embedding):
            continue
        parent = model.get_submodule(path.rpartition(".")[0])
        reason = "is to be kept" if is_within(path, keep) else reason_against(module, parent, owners)
        if not path:
            reason = "is the whole model"
        if reason:
            whole[path] = reason
        else:
            found[path] = module
    return found, whole


def is_within(path: str, parts: Iterable[str]) -> bool:
    """Whether a submodule is one of some parts, or lies within one."""
    return any(f"{path}.".startswith(f"{part}.") for part in parts)


AFTER_SELECTION = ("DFineDecoder", "LwDetrDecoder", "RTDetrDecoder", "RTDetrV2Decoder", "RfDetrDecoder", "RoIHeads")


def parts_after_selection(model: nn.Module) -> list[str]:
    """Parts that take what was selected among candidates, such as the heads of a detector for regions of interest.

    Once layers before them have changed, these are others, in another order, so what such a part gives in two networks
    cannot be compared. They are known by the names of their classes in torchvision and transformers.
    """
    return [path for path, module in model.named_modules() if type(module).__name__ in AFTER_SELECTION]


def reason_against(layer: nn.Module, parent: nn.Module, owners: Counter[int]) -> str:
    """Why a layer is not to be replaced by factors; empty where it can be."""
    if hasattr(layer, "parametrizations"):
        return "its weight is parametrised"
    if type(layer) not in (nn.Conv2d, nn.Linear) and not is_conv1d(layer):
        return f"no factorised form of a {type(layer).__name__}"
    if isinstance(parent, nn.MultiheadAttention | nn.TransformerEncoderLayer):
        return f"{type(parent).__name__} reads its weight"
    if not isinstance(layer._parameters.get("weight"), nn.Parameter) or layer._forward_hooks:
        return "hooks belong to it"
    if owners[id(layer.weight)] > 1:
        return "its weight is tied to another layer's"
    _, outputs, inputs, height, width = weight_of(layer).shape
    if outputs == 1 or (inputs == 1 and height * width > 1):
        return "is depthwise" if getattr(layer, "groups", 1) > 1 else "has one channel"
    return ""
