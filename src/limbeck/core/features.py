"""One layer or several, and the features that are read there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from limbeck.core.capture import Layer, as_layer
from limbeck.core.criterion import Feature


def as_layers(layers: Layer | str | Sequence[Layer | str]) -> tuple[Layer, ...]:
    if isinstance(layers, Layer | str):
        return (as_layer(layers),)
    return tuple(as_layer(layer) for layer in layers)


def names_of(layers: tuple[Layer, ...]) -> str:
    return "+".join(map(str, layers))


def gather(features: dict[Layer, Tensor], layers: tuple[Layer, ...]) -> Feature:
    """One feature for one layer, a tuple for several."""
    return features[layers[0]] if len(layers) == 1 else tuple(features[layer] for layer in layers)


def first_of(feature: Feature) -> Tensor:
    return feature if isinstance(feature, Tensor) else feature[0]


def each_of(function: Callable[[Tensor], Tensor], feature: Feature) -> Any:
    """The feature, or each of a tuple, through a function."""
    return function(feature) if isinstance(feature, Tensor) else tuple(map(function, feature))
