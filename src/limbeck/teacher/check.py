"""Whether a prepared teacher gives the features of the plain one."""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck.core.capture import Layer
from limbeck.core.unread import FeatureError

Features = dict[Layer, Tensor]
TF32 = 2.0**-10  # what CUDA's convolutions round float32 to
# Of a feature's norm. In bfloat16, with random weights, resnet18 differs by 0.008, a ViT-Ti by 0.009, mobilenetv2_100,
# the worst that was tried, by 0.05; an overflow by infinity.
PRECISION = 0.3


def check_finite(features: Features) -> None:
    """Raise ``FeatureError`` where the plain teacher gives a feature that is not finite."""
    for layer, feature in features.items():
        if not feature.isfinite().all():
            raise FeatureError(f"the teacher's {layer} is not finite for the example; are its weights loaded?")


def check_equal(expected: Features, prepared: Features) -> None:
    """Raise ``FeatureError`` where a feature differs in some channel by more than rounding."""
    for layer, feature in expected.items():
        excess = max(_excess(feature, prepared[layer], axis) for axis in {1 % feature.ndim, feature.ndim - 1})
        if not excess <= 1:
            raise FeatureError(f"its {layer} differs by {excess:.2g} times what rounding may do to a channel")


def check_repeatable(expected: Features, again: Features) -> None:
    """Raise ``FeatureError`` where the plain teacher gives another feature when it runs again."""
    try:
        check_equal(expected, again)
    except FeatureError as error:
        raise FeatureError(
            f"the teacher's forward is random in eval mode, so that nothing can be checked: {error}; "
            "pass fold_norm=False, channels_last=False"
        ) from None


def check_precision(expected: Features, cast: Features, dtype: torch.dtype) -> None:
    """Raise ``FeatureError`` where a feature is another one, or not finite, with weights in a lower precision."""
    for layer, feature in expected.items():
        wide = torch.promote_types(feature.dtype, torch.float32)
        error = (cast[layer].to(wide) - feature.to(wide)).norm() / feature.to(wide).norm().clamp_min(1e-12)
        if not error <= PRECISION:  # nor where it is nan
            raise FeatureError(
                f"in {dtype} the teacher's {layer} differs by {error:.2g} of its norm; hold its weights in "
                "float32, or in bfloat16 instead of float16, which overflows at 65504"
            )


def _excess(expected: Tensor, prepared: Tensor, axis: int) -> float:
    """The largest difference, in units of what rounding may do, where either axis may be that of the channels."""
    rounding = max(torch.finfo(expected.dtype).eps, TF32 if expected.is_cuda else 0.0) ** 0.5
    wide = torch.promote_types(expected.dtype, torch.float32)
    first = expected.to(wide).movedim(axis, 0).flatten(1)  # (C, positions)
    error = (prepared.to(wide).movedim(axis, 0).flatten(1) - first).abs().amax(1)
    size = first.abs().amax(1)
    allowed = max(0.01, 2 * rounding) * size + rounding * size.max()
    return float((error / allowed.clamp_min(1e-30)).max())
