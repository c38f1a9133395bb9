"""What a model costs: parameters, multiplications, and time on this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import nn

from limbeck.compress.cost import flops_of, parameters_of
from limbeck.compress.timing import timed
from limbeck.core.modules import Example, call, evaluating

WARM_UP, LEAST, SECONDS = 2, 5, 1.0  # calls before the clock; calls that are timed at least, and for how long


@dataclass(frozen=True)
class Cost:
    """What a model costs in inference.

    Args:
        parameters: Their number.
        macs: Multiplications with an addition, of one image, in convolutions, matrix products and attention.
        latency: Milliseconds of a batch of one, the median.
        throughput: Images a second, of a larger batch.
        batch: Images in that one.
    """

    parameters: int
    macs: int
    latency: float
    throughput: float
    batch: int


def cost(model: nn.Module, example: Callable[[int], Example], batch: int) -> Cost:
    """Count and time a model in eval mode, where it is.

    Args:
        model: On its device.
        example: What to call it with, for a number of images.
        batch: Images of which the throughput is measured.
    """
    with evaluating(model), torch.inference_mode():
        one, many = example(1), example(batch)
        return Cost(
            parameters=parameters_of(model),
            macs=flops_of(model, one) // 2,
            latency=1e3 * seconds(lambda: call(model, one)),
            throughput=batch / seconds(lambda: call(model, many)),
            batch=batch,
        )


def seconds(run: Callable[[], Any]) -> float:
    """Median time of a call, of which there are several."""
    for _ in range(WARM_UP):
        run()
    times: list[float] = []
    while len(times) < LEAST or sum(times) < SECONDS:
        times.append(timed(run))
    return median(times)
