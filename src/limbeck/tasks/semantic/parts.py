"""The two ends of a segmenter: an encoder that it shares with classifiers, and the layer that gives its classes."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.core.capture import Layer
from limbeck.core.modules import evaluating
from limbeck.models.checkpoints import published, read_tensors
from limbeck.tasks.semantic.task import logits_of

LOOKED_OVER_AT = 256  # pixels, height and width, of the image with which a model's layers are found


def load_backbone(model: nn.Module, source: str, path: str | None = None) -> int:
    """Load the weights of a classifier into the encoder of a segmenter or detector.

    Args:
        model: As ``build_segmenter`` or ``build_detector`` gave it.
        source: A ``.safetensors`` or torch file of tensors, or ``timm:NAME``, ``torchvision:NAME`` for what these
            publish.
        path: Of the encoder, where it has no usual name.

    Returns:
        The number of tensors loaded.

    Raises:
        ValueError: A tensor of the encoder is not in the file, or has another shape.
    """
    path = encoder_of(model) if path is None else path
    if not path:
        raise ValueError(f"{type(model).__name__} has no encoder or backbone to load {source} into")
    encoder = model.get_submodule(path)
    state = published(source) if source.startswith(("timm:", "torchvision:")) else read_tensors(Path(source))
    own = encoder.state_dict()
    found = {
        key: state[name]
        for key, value in own.items()
        for name in names_in_classifiers(key)
        if name in state and state[name].shape == value.shape
    }
    if missing := sorted(own.keys() - found.keys()):
        raise ValueError(
            f"{source} does not fit the encoder of {type(model).__name__}: {len(missing)} of {len(own)} tensors are "
            f"not in it, such as {missing[0]}; is it a file of this very backbone?"
        )
    encoder.load_state_dict(found)
    return len(found)


def names_in_classifiers(key: str) -> list[str]:
    """What a tensor of an encoder may be called in the file of a classifier."""
    key = key.removeprefix("model.")  # smp puts timm's models there
    return [key, f"features.{key}", f"segformer.{key}", re.sub(r"^([a-z]+)_(\d+)\.", r"\1.\2.", key)]


def encoder_of(model: nn.Module) -> str:
    """The path of the part that a segmenter shares with classifiers; empty where it has none by a usual name."""
    children = dict(model.named_children())
    return next((name for name in ("encoder", "backbone", "segformer") if name in children), "")


@torch.no_grad()
def before_classifier(model: nn.Module) -> Layer:
    """The last map before the classifier: what the last convolution takes whose channels are the output's.

    Where a dropout stands between, what that takes: a criterion would follow the noise.

    Raises:
        ValueError: There is none.
    """
    ran: list[tuple[str, Tensor, Tensor]] = []  # path, input, output
    hooks = [
        module.register_forward_hook(partial(_record, ran, path))
        for path, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Dropout | nn.Dropout2d)
    ]
    try:
        with evaluating(model):
            output = logits_of(model(torch.zeros(1, 3, LOOKED_OVER_AT, LOOKED_OVER_AT)))
    except (AssertionError, RuntimeError) as error:
        raise ValueError(
            f"{type(model).__name__} does not run on an image of {LOOKED_OVER_AT}x{LOOKED_OVER_AT} pixels ({error}); a "
            "segmenter has to take images of any size"
        ) from None
    finally:
        for hook in hooks:
            hook.remove()
    of_classes = [
        (path, taken)
        for path, taken, given in ran
        if isinstance(model.get_submodule(path), nn.Conv2d)
        and given.shape[1] == output.shape[1]
        and not is_auxiliary(path)
    ]
    if not of_classes:
        raise ValueError(f"{type(model).__name__} has no convolution that makes its classes; name the layers yourself")
    path, taken = of_classes[-1]
    dropouts = (dropout for dropout, _, given in ran if given is taken and dropout != path)
    return Layer(next(dropouts, path), input=True)


def _record(ran: list[tuple[str, Tensor, Tensor]], path: str, module: nn.Module, inputs: Any, output: Tensor) -> None:
    ran.append((path, inputs[0], output))


def is_auxiliary(path: str) -> bool:
    return any(name.startswith("aux") for name in path.split("."))
