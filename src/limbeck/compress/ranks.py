"""Ranks for every layer, so that the network has the size it should, and as little as possible is lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from limbeck.compress.closed_form import input_tails, output_tails
from limbeck.compress.forms import Ranks
from limbeck.compress.layers import bias_of, weight_of
from limbeck.compress.moments import Moments, has_kernel

Cost = Literal["parameters", "flops", "latency"]
MOST = 64  # ranks of a side that are considered
HALVINGS = 100


@dataclass(frozen=True)
class Curve:
    """What a layer may become: ranks, what they cost, and what they lose. The first is the layer as it is.

    Args:
        ranks: Of each candidate; of the first (None, None).
        cost: (n), parameters, multiplications or microseconds for one example.
        error: (n), the squared error of the outputs over their square, as the tails of the spectra say; at most 1.
    """

    ranks: list[Ranks]
    cost: Tensor
    error: Tensor

    @property
    def whole(self) -> float:
        return float(self.cost[0])


def curve_of(layer: nn.Module, moments: Moments, positions: tuple[float, float], multiple: int) -> Curve:
    """The candidates of a layer.

    Args:
        layer: To be factorised.
        moments: Of its inputs and outputs.
        positions: Multiply the weights at the input and at the output: (1, 1) counts parameters.
        multiple: Of which the ranks are multiples, where a layer is wide enough.
    """
    weight = weight_of(layer).detach().double().cpu()
    groups, outputs, inputs, height, width = weight.shape
    at_input, at_output = positions
    out_tails = output_tails(weight, moments.inputs, moments.outputs)
    outer = choices(min(outputs, len(out_tails)), multiple)
    candidates: list[tuple[Ranks, float]] = [((None, None), 0.0)]
    candidates += [((None, s), float(out_tails[s])) for s in outer]
    if has_kernel(layer):
        in_tails = input_tails(weight, moments.inputs)
        for r in choices(inputs, multiple):
            candidates.append(((r, None), float(in_tails[r])))
            candidates += [((r, s), min(1.0, float(in_tails[r] + out_tails[s]))) for s in outer]

    def cost(ranks: Ranks) -> float:
        r, s = ranks
        first = 0 if r is None else inputs * r * at_input
        core = (inputs if r is None else r) * (outputs if s is None else s) * height * width * at_output
        last = 0 if s is None else outputs * s * at_output
        return groups * (first + core + last)

    bias = 0 if bias_of(layer) is None else groups * outputs * at_output
    ranks, errors = zip(*candidates, strict=True)
    return Curve(
        list(ranks), torch.tensor([cost(each) + bias for each in ranks]).double(), torch.tensor(errors).double()
    )


def choices(width: int, multiple: int) -> list[int]:
    """Ranks below a width: multiples of a number where the width has several, and no more than are worth a look.

    >>> choices(64, 16), choices(5, 16)
    ([16, 32, 48], [1, 2, 3, 4])
    """
    step = multiple if width >= 2 * multiple else 1
    step *= -(-width // (MOST * step))
    return list(range(step, width, step))


def allocate(curves: Mapping[str, Curve], budget: float, how: Literal["error", "uniform"]) -> dict[str, Ranks]:
    """Ranks for layers, the cost of which fits a budget; (None, None) leaves a layer whole.

    ``error`` makes the sum of the layers' relative errors least, as a multiplier for the cost is found by bisection
    (Lagrange); ``uniform`` takes the same part from each layer.
    """
    choose: Callable[[Curve, float], int] = _by_price if how == "error" else _by_share
    low, high = (-40.0, 10.0) if how == "error" else (0.0, 1.0)  # log of the price; part that is taken away
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        fits = sum(float(curve.cost[choose(curve, middle)]) for curve in curves.values()) <= budget
        low, high = (low, middle) if fits else (middle, high)
    return {path: curve.ranks[choose(curve, high)] for path, curve in curves.items()}


def least(curve: Curve) -> float:
    """The lowest cost that a layer can have."""
    return float(curve.cost.min())


def _by_price(curve: Curve, logarithm: float) -> int:
    price = torch.tensor(logarithm, dtype=torch.float64).exp()
    return int((curve.error + price * curve.cost).argmin())


def _by_share(curve: Curve, share: float) -> int:
    affordable = curve.cost <= max((1 - share) * curve.whole, least(curve))
    return int(torch.where(affordable, curve.error, torch.inf).argmin())
