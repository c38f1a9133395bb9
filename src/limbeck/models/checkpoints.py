"""Tensors of a model, from files and from those who publish them."""

from __future__ import annotations

import os
import pickle
import re
import warnings
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from limbeck.data.problems import first_few
from limbeck.models.distilled import DISTILLATION_HEAD

WRAPPERS = re.compile(r"^(_orig_mod\.|module\.)+")  # before names of tensors: of torch.compile, of data parallelism
HOLDERS = ("state_dict", "model_state_dict", "model", "net")  # under which files of trainings have the tensors
AVERAGES = ("ema", *(form.format(name) for name in HOLDERS for form in ("{}_ema", "ema_{}")))  # over the steps
ARCHIVE, MAGIC = b"PK", b"l\xfc\x9cF\xf9 j\xa8P\x19"  # with which torch.save begins, and before torch 1.6


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
            f"{_some(wrong)} of another shape; {_prefixed(missing, unexpected) or 'is it a file of this very model?'}"
        )
    model.load_state_dict(state)
    return other


def _prefixed(missing: list[str], unexpected: list[str]) -> str:
    """What to do where the names would fit without a prefix that all of them have, such as that of a wrapper."""
    for prefix in sorted({f"{key.partition('.')[0]}." for key in unexpected}):
        if missing and {prefix + key for key in missing} <= set(unexpected):
            short = f"{{k.removeprefix({prefix!r}): v for k, v in state.items() if k.startswith({prefix!r})}}"
            return f"its names fit without {prefix!r}: load its state_dict as state, and save {short} in its stead"
    return ""


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
        if os.path.expanduser("~") == "~":  # who publishes weights keeps them there
            raise ValueError(
                f"the published weights of {name} have no place, since this user has no home folder: set the variable "
                "HOME to a folder, or pass a file of weights"
            ) from None
        raise ValueError(f"no published weights of {name} ({error}); pass a file of weights instead") from None
    raise ValueError(f"nothing publishes weights for {name!r}; pass a file of weights")


def _some(names: list[str]) -> str:
    return f"{len(names)} tensors" + (f" ({first_few(names)})" if names else "")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors by name in a ``.safetensors`` or torch file.

    Raises:
        ValueError: There is no such file, it is none of these, holds more than tensors, or a tensor holds nan.
    """
    if not path.is_file():
        nearest = get_close_matches(str(path).lower(), ["pretrained"])
        raise ValueError(f"no weights at {path}" + (f"; did you mean {nearest[0]}?" if nearest else ""))
    try:
        state = load_file(path) if path.suffix == ".safetensors" else _state_dict(_loaded(path), path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    for key, value in state.items():
        if value.is_floating_point() and value.float().isnan().any():
            raise ValueError(f"{path} holds nan in {key}: its training diverged; take an earlier file of it")
    return state


def _loaded(path: Path) -> Any:
    """What a torch file holds, without running code that is in it."""
    with path.open("rb") as file:
        start = file.read(32)
    if not start.startswith(ARCHIVE) and MAGIC not in start:
        why = f"it begins with {start[:8]!r}" if start else "it is empty"
        raise ValueError(
            f"{path} is no file of torch.save ({why}), nor does its name end in .safetensors; save the model's "
            "state_dict() with safetensors.torch.save_file"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the protocol: what cannot be read is told below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(
            f"{path} holds more than tensors, so loading it could run code: refused; load it where you trust it, and "
            "save its state_dict() with safetensors.torch.save_file"
        ) from None
    except Exception as error:  # a damaged file makes the reader stumble anywhere
        raise ValueError(f"{path} cannot be read as a torch file: {error or type(error).__name__}") from None


def _is_model(key: Any, value: Any) -> bool:
    """Whether a checkpoint has tensors of a model under this key."""
    is_called_so = key in (*HOLDERS, *AVERAGES)
    return is_called_so and isinstance(value, dict) and any(isinstance(each, Tensor) for each in value.values())


def _state_dict(loaded: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(loaded, dict) and (sets := [key for key, value in loaded.items() if _is_model(key, value)])[1:]:
        raise ValueError(
            f"{path} holds several models, {', '.join(sets)}: load it, and save the one that is meant alone, such as "
            f"torch.save(loaded[{sets[-1]!r}], FILE)"
        )
    for key in HOLDERS:
        loaded = loaded.get(key, loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(loaded, dict):
        raise ValueError(f"{path} holds a {type(loaded).__name__}, no state_dict, which maps names to tensors")
    if other := [key for key, value in loaded.items() if not (isinstance(key, str) and isinstance(value, Tensor))]:
        keys = ", ".join(repr(key) for key in other[:5])
        raise ValueError(
            f"{path} holds no state_dict, which maps names to tensors: no tensor is under {keys}"
            f"{', ...' if len(other) > 5 else ''}; save what is under one of them alone, or under 'state_dict'"
        )
    return {WRAPPERS.sub("", key): value for key, value in loaded.items()}
