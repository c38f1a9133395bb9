"""What features a model has, found by running it once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.core.capture import Layer
from limbeck.core.modules import Example
from limbeck.core.trace import Trace, trace
from limbeck.models.intermediates import mark_stages, names_stages
from limbeck.models.maps import Found, image_size, kind_and_size


def survey(model: nn.Module, example: Example) -> list[Found]:
    """Run a model once in eval mode, and list what its submodules gave, in the order in which they finished.

    Args:
        model: Any module; its modes are restored.
        example: What to call it with. Of a square image, tokens are taken for a square of patches.
    """
    with torch.no_grad():
        return _survey(example, trace(model, example))


def survey_used(model: nn.Module, image: Tensor, read: Callable[[Any], Tensor]) -> list[Found]:
    """``survey`` without what the output does not depend on, as the last stages of an encoder that a decoder passes by.

    Args:
        model: Any module; its modes are restored.
        image: What to call it with.
        read: Takes the tensor in question out of the output.
    """
    with torch.enable_grad():
        traced = trace(model, image.clone().requires_grad_())
        watched = [each for each in _survey(image, traced) if each.tensor.requires_grad]
        gradients = torch.autograd.grad(read(traced.output).sum(), [each.tensor for each in watched], allow_unused=True)
    return [each for each, gradient in zip(watched, gradients, strict=True) if gradient is not None]


def _survey(example: Example, traced: Trace) -> list[Found]:
    image = image_size(example)
    found = []
    for call in traced.calls:
        if isinstance(call.output, Tensor):
            kind, size = kind_and_size(call.output, image)
            version = call.versions_after[id(call.output)]
            found.append(Found(call.path, kind, call.output, version, call.module, size))
    return mark_stages(found, traced.calls)


def last_spatial(model: nn.Module, surveyed: list[Found]) -> Found:
    """The last spatial feature of a model, before it is pooled: a map, or a transformer's patch tokens read as one.

    Args:
        model: As it was surveyed.
        surveyed: What ``survey`` found.

    Raises:
        ValueError: No submodule gives one with more than one position.
    """
    return stages(model, surveyed)[-1]


def stages(model: nn.Module, surveyed: list[Found], most: int = 4) -> list[Found]:
    """The model's last spatial feature, and before it the last of each other size: what its stages give.

    Where the model has ``forward_intermediates``, as timm's have, it says itself what these are. Else it is seen by
    the sizes: what lies inside a block that changes the size, such as an expansion before a strided convolution, is
    no stage of its own. A plain transformer has one size, so one stage.

    Args:
        model: As it was surveyed.
        surveyed: What ``survey`` found.
        most: So many are taken, from the deepest on; they are given from the first to the deepest.

    Raises:
        ValueError: No submodule gives a feature with more than one position, or the one that the model says.
    """
    named = [found for found in surveyed if found.is_stage]
    if not named and any(names_stages(found.module) for found in surveyed):
        raise ValueError(
            f"what {type(model).__name__}.forward_intermediates gives last is given by no submodule; name a layer "
            "(limbeck layers shows what there is)"
        )
    if larger := [found for found in named if found.size != (1, 1)]:
        return larger[-most:]
    token_paths = {found.path for found in surveyed if found.kind == "tokens"}
    spatial = [found for found in surveyed if _is_spatial(found, token_paths)]
    if not spatial:
        raise ValueError(
            f"no submodule of {type(model).__name__} gives a map or tokens with more than one position; "
            "use larger images, or name a layer (limbeck layers shows what there is)"
        )
    by_grid: dict[tuple[int, int] | None, Found] = {}
    for found in spatial:
        if found is spatial[-1] or not _inside_a_step(found, spatial):
            by_grid.pop(found.size, None)  # the order is that of the last ones
            by_grid[found.size] = found
    return [_outermost(found, surveyed) for found in by_grid.values()][-most:]


def _is_spatial(found: Found, token_paths: set[str]) -> bool:
    """Whether it has several positions, is as it was given, and is no head of an attention."""
    grid, parent = found.size, found.path.rpartition(".")[0]
    if not grid or grid[0] * grid[1] == 1 or found.tensor._version != found.version:
        return False
    return found.kind == "tokens" or not parent or parent not in token_paths


def _inside_a_step(feature: Found, spatial: list[Found]) -> bool:
    """Whether a feature is inside a block that gives another size than it is given."""
    for block in spatial:
        if feature.path.startswith(f"{block.path}.") and block.path and block.size != feature.size:
            sizes = {found.size for found in spatial if found.path.startswith(f"{block.path}.")}
            # A sequence only holds other blocks, and what has more sizes inside is a whole network.
            if not isinstance(block.module, nn.Sequential) and len(sizes) <= 2:
                return True
    return False


def before_activation(model: nn.Module, surveyed: list[Found], feature: Found) -> Layer:
    """Where to read a feature before the activation that ends it; the feature itself where there is none.

    The activation is kept from changing its input in place, which does not change what it returns.

    Raises:
        ValueError: It cannot be read, since the activation is no module of its own, or one that runs several times.
    """
    named = [found for found in surveyed if found.tensor is feature.tensor and _is_activation(found.module)]
    if not named:
        if feature.tensor.min() < 0:
            return feature.layer  # as a linear bottleneck gives it
        raise ValueError(
            f"{feature.path} of {type(model).__name__} ends in an activation that is no module, so its input cannot be "
            "read; name the layers yourself"
        )
    activation = named[0]
    if sum(found.path == activation.path for found in surveyed) > 1:
        raise ValueError(
            f"{activation.path} of {type(model).__name__} runs several times, so that its last input cannot be read; "
            "timm's models have one activation for each place"
        )
    if hasattr(activation.module, "inplace"):
        activation.module.inplace = False  # type: ignore[assignment]
    return Layer(activation.path, feature.layer.read, input=True)


def _outermost(feature: Found, surveyed: list[Found]) -> Found:
    same = [found for found in surveyed if found.tensor is feature.tensor and found.version == feature.version]
    return min(same, key=lambda found: found.path.count("."))


def _is_activation(module: nn.Module) -> bool:
    return type(module).__module__ in ("torch.nn.modules.activation", "timm.layers.activations")
