"""Tensors of a model, from files and from those who publish them."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from limbeck.models.distilled import DISTILLATION_HEAD


def load_weights(model: nn.Module, source: str, *, name: str = "", new_head: bool = False) -> list[str]:
    """Load weights from a file, or the ones published for the model.

    Args:
        model: As its builder gave it.
        source: A ``.safetensors`` or torch file of tensors (one that holds code is refused), or ``"pretrained"``: what
            timm or torchvision publish for the model of this name.
        name: As its builder took it, such as ``timm:resnet50``.
        new_head: Leave out a classifier for another number of classes.

    Returns:
        The names of the tensors that were left out.

    Raises:
        ValueError: Tensors are missing, unexpected or of other shapes, or the file is none of these.
    """
    return load_tensors(model, tensors_of(source, name), source, new_head=new_head)


def tensors_of(source: str, name: str) -> dict[str, Tensor]:
    """The tensors by name in a file, or of what is published for a model."""
    return published(name) if source == "pretrained" else read_tensors(Path(source))


def load_tensors(model: nn.Module, state: dict[str, Tensor], source: str, *, new_head: bool = False) -> list[str]:
    """As ``load_weights``, once the tensors are read from their source."""
    own = model.state_dict()
    other = of_other_shapes(state, own)
    heads = {key.rpartition(".")[0].replace(DISTILLATION_HEAD, "head") for key in other}  # of two, one
    if new_head and len(heads) <= 1:
        for key in other:
            state[key] = own[key]
    else:
        new_head = False
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    wrong = [f"{k} {tuple(state[k].shape)} for {tuple(own[k].shape)}" for k in other if not new_head]
    if missing or unexpected or wrong:
        raise ValueError(
            f"{source} does not fit {type(model).__name__}: {_some(missing)} missing, {_some(unexpected)} unexpected, "
            f"{_some(wrong)} of another shape; is it a file of this very model?"
        )
    model.load_state_dict(state)
    return other


def of_other_shapes(state: dict[str, Tensor], own: dict[str, Tensor]) -> list[str]:
    """The names, sorted, of the tensors that a file and a model both have, in different shapes."""
    return sorted(key for key in state.keys() & own.keys() if state[key].shape != own[key].shape)


def published(name: str) -> dict[str, Tensor]:
    kind, _, rest = name.rpartition(":")
    try:
        if kind == "timm":
            import timm

            model: nn.Module = timm.create_model(rest, pretrained=True)
            return model.state_dict()
        if kind == "torchvision":
            from torchvision import models

            weights: dict[str, Tensor] = models.get_model_weights(rest).DEFAULT.get_state_dict(check_hash=True)
            return weights
    except OSError as error:
        raise ValueError(
            f"the published weights of {name} could not be downloaded ({error}); connect, or pass a file of weights"
        ) from None
    except RuntimeError as error:
        raise ValueError(f"no published weights of {name} ({error}); pass a file of weights instead") from None
    raise ValueError(f"nothing publishes weights for {name!r}; pass a file of weights")


def _some(names: list[str]) -> str:
    return f"{len(names)} tensors" + (f" ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})" if names else "")


def read_tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ValueError(f"no weights at {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    except pickle.UnpicklingError:
        raise ValueError(
            f"{path} holds more than tensors, so loading it could run code: refused; load it where you trust it, and "
            "save its state_dict() with safetensors.torch.save_file"
        ) from None
    except (RuntimeError, EOFError) as error:
        raise ValueError(f"{path} cannot be read as a torch file: {error}") from None
    for key in ("state_dict", "model"):
        loaded = loaded.get(key, loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise ValueError(f"{path} holds no state_dict: it should map names to tensors")
    return {key.removeprefix("module."): value for key, value in loaded.items()}
