"""Image classifiers by name."""

from __future__ import annotations

from difflib import get_close_matches

from torch import nn

from limbeck.data.inputs import Inputs
from limbeck.models.build import FILE, Source, build
from limbeck.models.files import inputs_of, model_at
from limbeck.models.model import Model

SIZE = 224  # pixels, of what does not say its own


def build_classifier(name: str, classes: list[str], size: int | None = None) -> Model:
    """A classifier by name; see ``limbeck.models.build.build``."""
    return build(name, classes, SOURCES, tasks=("classification",), size=size)


def _from_timm(name: str, classes: list[str], size: int | None) -> Model:
    import timm
    from timm.data import resolve_model_data_config

    if not is_timm(name):
        nearest = get_close_matches(name, timm.list_models(), n=3)
        raise ValueError(f"timm has no model {name!r}; nearest: {', '.join(nearest) or 'none'}")
    module = timm.create_model(name, num_classes=len(classes))
    config = resolve_model_data_config(module)
    if size is not None and size != config["input_size"][-1] and module.pretrained_cfg.get("fixed_input_size"):
        module = timm.create_model(name, num_classes=len(classes), img_size=size)
    return Model(module, Inputs(size or config["input_size"][-1], tuple(config["mean"]), tuple(config["std"])), classes)


def is_timm(name: str) -> bool:
    import timm

    known: bool = timm.is_model(name.partition(".")[0])
    return known


def _from_torchvision(name: str, classes: list[str], size: int | None) -> Model:
    from torchvision import models

    if not is_torchvision(name):
        nearest = get_close_matches(name, models.list_models(module=models), n=3)
        raise ValueError(f"torchvision has no classifier {name!r}; nearest: {', '.join(nearest) or 'none'}")
    module: nn.Module = models.get_model(name, num_classes=len(classes))
    return Model(module, Inputs(size or SIZE), classes)


def is_torchvision(name: str) -> bool:
    from torchvision import models

    return name in models.list_models(module=models)


def _from_file(name: str, classes: list[str], size: int | None) -> Model:
    module = model_at(name, len(classes))
    return Model(module, inputs_of(module, name, size or SIZE), classes)


SOURCES = {
    "timm": Source("timm:NAME", _from_timm, is_timm),
    "torchvision": Source("torchvision:NAME", _from_torchvision, is_torchvision),
    FILE: Source("FILE.py:FUNCTION", _from_file),
}
