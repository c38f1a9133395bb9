"""Train or distil an instance segmenter: as a detector, with masks."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from limbeck.tasks.detection import recipe as detection
from limbeck.tasks.detection.recipe import Data as Data
from limbeck.training.recipe import Recipe


def _with_masks(make: Callable[..., Recipe]) -> Callable[..., Recipe]:
    @wraps(make)
    def made(*args: Any, **given: Any) -> Recipe:
        return make(*args, **{**given, "masks": True})

    made.__doc__ = (make.__doc__ or "").replace("an object detector", "an instance segmenter")
    return made


distill = _with_masks(detection.distill)
train = _with_masks(detection.train)
