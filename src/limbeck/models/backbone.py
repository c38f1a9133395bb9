"""The weights of a classifier, for the encoder that a segmenter or detector shares with it."""

from __future__ import annotations

import re
from pathlib import Path

from limbeck.models.checkpoints import published, read_tensors
from limbeck.models.model import Model


def load_backbone(model: Model, source: str) -> int:
    """Load the weights of a classifier into the encoder of a segmenter or detector.

    Args:
        model: With an encoder.
        source: A ``.safetensors`` or torch file of tensors, or ``timm:NAME``, ``torchvision:NAME`` for what these
            publish.

    Returns:
        The number of tensors loaded.

    Raises:
        ValueError: There is no encoder, or a tensor of it is not in the file or has another shape.
    """
    kind = type(model.module).__name__
    if not model.encoder:
        raise ValueError(f"{kind} has no encoder or backbone to load {source} into")
    encoder = model.module.get_submodule(model.encoder)
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
            f"{source} does not fit the encoder of {kind}: {len(missing)} of {len(own)} tensors are not in it, such as "
            f"{missing[0]}; is it a file of this very backbone?"
        )
    encoder.load_state_dict(found)
    model.mark_loaded(path=model.encoder)
    return len(found)


def names_in_classifiers(key: str) -> list[str]:
    """What a tensor of an encoder may be called in the file of a classifier."""
    key = key.removeprefix("model.")  # smp puts timm's models there
    return [key, f"features.{key}", f"segformer.{key}", re.sub(r"^([a-z]+)_(\d+)\.", r"\1.\2.", key)]
