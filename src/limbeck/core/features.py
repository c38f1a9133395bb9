"""One layer or several, and the features that are read there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

from limbeck.core.capture import Layer, as_layer
from limbeck.core.criterion import Feature

Features = dict[Layer, Tensor]  # by where they are read


def as_layers(layers: Layer | str | Iterable[Layer | str]) -> tuple[Layer, ...]:
    """One layer or several, each by its path or as a ``Layer``; ``TypeError`` for anything else."""
    if isinstance(layers, str | nn.Module) or not isinstance(layers, Iterable):
        return (as_layer(layers),)
    if not (named := tuple(map(as_layer, layers))):
        raise ValueError("no layer: name one or several, as model.named_modules() gives them")
    return named


def names_of(layers: tuple[Layer, ...]) -> str:
    return "+".join(map(str, layers))


def gather(features: Features, layers: tuple[Layer, ...]) -> Feature:
    """One feature for one layer, a tuple for several."""
    return features[layers[0]] if len(layers) == 1 else tuple(features[layer] for layer in layers)


def first_of(feature: Feature) -> Tensor:
    return feature if isinstance(feature, Tensor) else feature[0]


def each_of(function: Callable[[Tensor], Tensor], feature: Feature) -> Any:
    """The feature, or each of a tuple, through a function."""
    return function(feature) if isinstance(feature, Tensor) else tuple(map(function, feature))
