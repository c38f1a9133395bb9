"""Factors for layers, fitted to what the layers gave: each by itself, or one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from limbeck.compress.closed_form import Pairs, error_of, input_basis, regress
from limbeck.compress.forms import Ranks, twin
from limbeck.compress.layers import is_within, parts_after_selection, weight_of
from limbeck.compress.moments import Moments, by_group, has_kernel, patches, product, without_bias
from limbeck.compress.passes import Batches, inputs_and_outputs, watch
from limbeck.core.modules import evaluating


@dataclass(frozen=True)
class Factors:
    """Of a layer: V, G and U, but for those left out; and the error that they make on the data."""

    factors: list[Tensor]
    error: float


class Fit:
    """The closed form of one layer.

    Args:
        layer: As it was.
        ranks: Of the inputs and outputs.
        moments: By which the directions of the inputs are chosen.
    """

    def __init__(self, layer: nn.Module, ranks: Ranks, moments: Moments):
        self.layer, self.ranks = layer, ranks
        self.weight = weight_of(layer).detach().double().cpu()
        groups, outputs, inputs, height, width = self.weight.shape
        self.encode: Tensor | None = None
        self.prior = self.weight
        if ranks[0] is not None:
            self.encode, decode = input_basis(self.weight, moments.inputs, ranks[0])
            self.prior = torch.einsum("goikl,gir->gorkl", self.weight, decode)
            inputs = ranks[0]
        size = inputs * height * width
        self.shape = (inputs, height, width)
        self.pairs = Pairs(
            torch.zeros(groups, size, size, dtype=torch.float64),
            torch.zeros(groups, outputs, size, dtype=torch.float64),
            torch.zeros(groups, dtype=torch.float64),
        )

    def see(self, x: Tensor, y: Tensor) -> None:
        """Add inputs, and the outputs that are to come of them."""
        rows, columns = patches(self.layer, x, self.encode), by_group(self.layer, without_bias(self.layer, y))
        self.pairs.patches += product(rows, rows)
        self.pairs.cross += product(columns, rows)
        self.pairs.energy += columns.double().square().sum((1, 2)).cpu()

    def imagine(self, moments: Moments) -> None:
        """Take what the moments of the inputs say, where a layer has no kernel, or nothing is known of the data."""
        matrix = self.weight.flatten(2)
        if has_kernel(self.layer):  # of independent inputs
            self.pairs.patches += torch.eye(self.pairs.patches.shape[-1], dtype=torch.float64)
            self.pairs.cross += self.prior.flatten(2)
            self.pairs.energy += matrix.square().sum((1, 2))
        else:
            self.pairs.patches += moments.inputs
            self.pairs.cross += matrix @ moments.inputs
            self.pairs.energy += (self.pairs.cross * matrix).sum((1, 2))

    def factors(self) -> Factors:
        """Solve for the factors."""
        core, left = regress(self.pairs, self.prior.flatten(2), self.ranks[1])
        made = core if left is None else left @ core
        found = [core.reshape(*core.shape[:2], *self.shape)]
        if self.encode is not None:
            found.insert(0, self.encode)
        if left is not None:
            found.append(left)
        return Factors(found, max(0.0, error_of(self.pairs, made)))


def fit_each(
    model: nn.Module, ranks: Mapping[str, Ranks], moments: Mapping[str, Moments], data: Batches | None
) -> dict[str, Factors]:
    """Factors for each layer from its own inputs, in one more pass of the data; without data, from the weights."""
    fits = {path: Fit(model.get_submodule(path), each, moments[path]) for path, each in ranks.items()}
    with_kernel = {path: fit for path, fit in fits.items() if data is not None and has_kernel(fit.layer)}
    for path in fits.keys() - with_kernel.keys():
        fits[path].imagine(moments[path])
    if data is not None and with_kernel:
        watch(model, {path: fit.see for path, fit in with_kernel.items()}, data)
    return {path: fit.factors() for path, fit in fits.items()}


@torch.no_grad()
def fit_in_sequence(
    model: nn.Module,
    compressed: nn.Module,
    ranks: Mapping[str, Ranks],
    moments: Mapping[str, Moments],
    calls: Mapping[str, int],
    data: Batches,
    say: Callable[[str], None],
) -> dict[str, Factors]:
    """Replace layers of a copy one after the other, each fitted to what the original gives, from the copy's inputs.

    Layers in parts that take what was selected among candidates are fitted from the original's inputs.

    Args:
        model: The original.
        compressed: Its copy, which is changed.
        ranks: Of the layers, in the order in which they run.
        moments: Of the original's layers.
        calls: How often each layer runs in a pass.
        data: Gone over twice for each layer, as far as that layer.
        say: Told of each layer.
    """
    found, excepted = {}, parts_after_selection(model)
    for number, (path, each) in enumerate(ranks.items(), 1):
        say(f"layer {number} of {len(ranks)}: {path}")
        layer = model.get_submodule(path)
        fit = Fit(layer, each, moments[path])
        with evaluating(model), evaluating(compressed):
            for batch in data:
                targets = inputs_and_outputs(model, path, batch, calls[path])
                inputs = targets
                if not is_within(path, excepted):
                    inputs = inputs_and_outputs(compressed, path, batch, calls[path])
                for (_, y), (x, _) in zip(targets, inputs, strict=True):
                    fit.see(x, y)
        found[path] = fit.factors()
        compressed.set_submodule(path, twin(layer, each, found[path].factors))
    return found
