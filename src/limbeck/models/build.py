"""Models by name, and their weights."""

from __future__ import annotations

import importlib.util
import json
import pickle
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Inputs:
    """What images a model takes: RGB in [0, 1] less the mean, over the standard deviation; square for classifiers."""

    size: int  # pixels
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    multiple: int = 1  # of which a segmenter's height and width have to be multiples, in pixels


def build_model(name: str, classes: list[str], size: int | None = None) -> tuple[nn.Module, Inputs]:
    """A classifier by name, with the inputs it expects.

    Args:
        name: ``timm:NAME``, ``torchvision:NAME``, ``FILE.py:FUNCTION`` (called with ``num_classes=``), or a run folder,
            which brings its weights.
        classes: Names of the classes, in the order of the outputs.
        size: Image size in pixels; ``None`` takes the model's own, or 224.

    Raises:
        ValueError: There is no such model, or a run folder's classes are others.
    """
    kind, _, rest = name.rpartition(":")
    if kind == "timm":
        return _from_timm(rest, len(classes), size)
    if kind == "torchvision":
        return _from_torchvision(rest, len(classes)), Inputs(size or 224)
    if kind.endswith(".py"):
        return function_in(Path(kind), rest)(num_classes=len(classes)), Inputs(size or 224)
    if (Path(name) / "student.safetensors").is_file():
        return _from_run(Path(name) / "student.safetensors", classes, size)
    raise ValueError(
        f"no model {name!r}: write timm:NAME, torchvision:NAME, FILE.py:FUNCTION, or the folder of a finished run"
    )


def load_weights(model: nn.Module, source: str, *, name: str = "", new_head: bool = False) -> list[str]:
    """Load weights from a file, or the ones published for the model.

    Args:
        model: As ``build_model`` gave it.
        source: A ``.safetensors`` or torch file of tensors (one that holds code is refused), or ``"pretrained"``: what
            timm or torchvision publish for the model of this name.
        name: As ``build_model`` took it.
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
    if new_head and len({key.rpartition(".")[0] for key in other}) <= 1:
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
    except (OSError, RuntimeError) as error:  # no network, or nothing is published
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


def _from_timm(name: str, classes: int, size: int | None) -> tuple[nn.Module, Inputs]:
    import timm
    from timm.data import resolve_model_data_config

    if not timm.is_model(name.split(".")[0]):
        nearest = get_close_matches(name, timm.list_models(), n=3)
        raise ValueError(f"timm has no model {name!r}; nearest: {', '.join(nearest) or 'none'}")
    model = timm.create_model(name, num_classes=classes)
    config = resolve_model_data_config(model)
    if size is not None and size != config["input_size"][-1] and model.pretrained_cfg.get("fixed_input_size"):
        model = timm.create_model(name, num_classes=classes, img_size=size)
    return model, Inputs(size or config["input_size"][-1], tuple(config["mean"]), tuple(config["std"]))


def _from_torchvision(name: str, classes: int) -> nn.Module:
    from torchvision import models

    if name not in models.list_models(module=models):
        nearest = get_close_matches(name, models.list_models(module=models), n=3)
        raise ValueError(f"torchvision has no classifier {name!r}; nearest: {', '.join(nearest) or 'none'}")
    model: nn.Module = models.get_model(name, num_classes=classes)
    return model


def function_in(path: Path, function: str) -> Any:
    """A function of a Python file, which is run: only for files that the user names."""
    if not path.is_file():
        raise ValueError(f"no file {path}, in which {function} should be")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, function):
        raise ValueError(f"{path} has no function {function!r}")
    return getattr(module, function)


def _from_run(path: Path, classes: list[str], size: int | None) -> tuple[nn.Module, Inputs]:
    card = read_card(path)
    if classes and card["classes"] != classes:
        raise ValueError(f"{path.parent} knows the classes {card['classes'][:5]}..., the data has {classes[:5]}...")
    model, _ = build_model(card["model"], card["classes"], card["size"])
    load_weights(model, str(path))
    return model, Inputs(size or card["size"], tuple(card["mean"]), tuple(card["std"]))


def read_card(path: Path) -> dict[str, Any]:
    """What a run wrote about its model: name, classes, and the inputs it expects."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
    if "limbeck" not in metadata:
        raise ValueError(f"{path} was not written by a run of limbeck")
    card: dict[str, Any] = json.loads(metadata["limbeck"])
    return card
