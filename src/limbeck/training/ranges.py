"""The ranges of the numbers that users give, all in one place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Range:
    """From ``low`` to ``high``; without an end itself where that is excluded. ``otherwise``: what else may be meant."""

    low: float
    high: float = math.inf
    without_low: bool = False
    without_high: bool = False
    otherwise: str = ""

    def __contains__(self, value: float) -> bool:
        above = self.low < value if self.without_low else self.low <= value
        below = value < self.high if self.without_high or math.isinf(self.high) else value <= self.high
        return above and below

    def __str__(self) -> str:
        least = f"above {self.low:g}" if self.without_low else f"{self.low:g} or more"
        most = "" if math.isinf(self.high) else f", and {'below' if self.without_high else 'at most'} {self.high:g}"
        return least + most + self.otherwise


AT_LEAST_ONE, NOT_NEGATIVE, POSITIVE = Range(1), Range(0), Range(0, without_low=True)
SHARE, SHARE_BELOW_ONE = Range(0, 1), Range(0, 1, without_high=True)
RANGES: Mapping[str, Range] = {
    **dict.fromkeys(("epochs", "batch_size", "accumulate", "evaluate_every", "checkpoint_every"), AT_LEAST_ONE),
    **dict.fromkeys(("max_steps", "patience", "keep_every", "images", "labels", "batch"), AT_LEAST_ONE),
    **dict.fromkeys(
        ("size", "teacher_size", "beside_size", "load_size", "short_side", "long_side", "crop"), AT_LEAST_ONE
    ),
    **dict.fromkeys(("learning_rate", "slice_rate", "max_hours", "scale"), POSITIVE),
    **dict.fromkeys(
        ("weight_decay", "warmup_epochs", "workers", "auxiliary", "dice", "colour", "mixup", "cutmix"), NOT_NEGATIVE
    ),
    **dict.fromkeys(("flip", "erasing", "loaded_rate", "score"), SHARE),
    **dict.fromkeys(("sample", "multiple", "slice_patience", "depth", "strides"), AT_LEAST_ONE),
    **dict.fromkeys(("slice_epochs", "global_epochs", "pictures"), NOT_NEGATIVE),
    **dict.fromkeys(("labelled_share", "label_smoothing"), SHARE_BELOW_ONE),
    **dict.fromkeys(("seed", "data_seed"), Range(-(2**63), 2**64 - 1)),  # which torch takes
    "ignore_index": Range(0, 255),
    "ratio": Range(0, 1, without_low=True, without_high=True),
    "clip": Range(0, without_low=True, otherwise=", or None for no clipping"),
    "ema": Range(0, 1, without_low=True, without_high=True),
}


def check_ranges(options: Mapping[str, Any]) -> None:
    """Look at every number, also in tuples and in groups of options, whose name has a range.

    Raises:
        ValueError: One is outside, or not a number.
    """
    for name, value in options.items():
        if hasattr(value, "__dataclass_fields__"):
            check_ranges(vars(value))
        values = value if isinstance(value, tuple) else (value,)
        numbers = [each for each in values if isinstance(each, int | float)]
        if name in RANGES and not all(number in RANGES[name] for number in numbers):
            finite = "" if all(math.isfinite(number) for number in numbers) else "finite and "
            raise ValueError(f"{name} is {value}; it must be {finite}{RANGES[name]}")
