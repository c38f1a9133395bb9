"""What a model costs: parameters, multiplications, and time on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

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
        with FlopCounterMode(display=False) as counter:
            call(model, one)
        return Cost(
            parameters=sum(each.numel() for each in model.parameters()),
            macs=counter.get_total_flops() // 2,
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
        wait_for_device()
        started = time.perf_counter()
        run()
        wait_for_device()
        times.append(time.perf_counter() - started)
    return median(times)


def wait_for_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
