"""Models by name, and their weights."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from torch import nn

from limbeck.models.checkpoints import load_weights
from limbeck.models.files import function_in
from limbeck.models.run_folder import RunFolder

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
    if RunFolder(Path(name)).has_student():
        return _from_run(RunFolder(Path(name)), classes, size)
    raise ValueError(
        f"no model {name!r}: write timm:NAME, torchvision:NAME, FILE.py:FUNCTION, or the folder of a finished run"
    )


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


def _from_run(run: RunFolder, classes: list[str], size: int | None) -> tuple[nn.Module, Inputs]:
    card = run.card(classes)
    model, _ = build_model(card["model"], card["classes"], card["size"])
    load_weights(model, str(run.student))
    return model, Inputs(size or card["size"], tuple(card["mean"]), tuple(card["std"]))
