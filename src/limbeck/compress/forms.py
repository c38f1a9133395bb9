"""Factorised twins of a layer, as plain modules.

With a weight W (O, I, k, k), a rank r of the inputs and a rank s of the outputs, y = U G V x: V is a 1x1 convolution
from I to r channels, G a k x k one from r to s with the stride, padding and dilation of the layer, U a 1x1 one from s
to O, with its bias: Tucker-2 (arXiv 1511.06530). A rank of ``None`` leaves that side, and its convolution, out. A 1x1
convolution or a linear layer takes the rank of its outputs alone, which makes it two factors: a singular value
decomposition. Groups stay groups, with ranks for each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.compress.layers import bias_of, weight_of
from limbeck.compress.mpo import MPO

Ranks = tuple[int | None, int | None]  # of the inputs and of the outputs, of each group
Part = tuple[str, dict[str, Any]]  # a module: its class in torch.nn, and its arguments
Structure = Mapping[str, Sequence[Part]]  # the factors in the place of each layer, by its path

MODULES: Mapping[str, type[nn.Module]] = {"Conv2d": nn.Conv2d, "Linear": nn.Linear, "MPO": MPO}


def parts_of(layer: nn.Module, ranks: Ranks) -> list[Part]:
    """What stands in the place of a layer: modules, in their order."""
    groups, outputs, inputs, _, _ = weight_of(layer).shape
    inner, outer = ranks
    bias = bias_of(layer) is not None
    if not isinstance(layer, nn.Conv2d):
        assert inner is None
        widths = [inputs, outer, outputs] if outer is not None else [inputs, outputs]
        pairs = list(pairwise(widths))
        return [
            ("Linear", {"in_features": a, "out_features": b, "bias": bias and index == len(pairs) - 1})
            for index, (a, b) in enumerate(pairs)
        ]
    widths = [groups * (inputs if inner is None else inner), groups * (outputs if outer is None else outer)]
    core = {
        "kernel_size": list(layer.kernel_size),
        "stride": list(layer.stride),
        "padding": layer.padding if isinstance(layer.padding, str) else list(layer.padding),
        "dilation": list(layer.dilation),
        "padding_mode": layer.padding_mode,
    }
    plain: dict[str, Any] = {"kernel_size": 1}
    chain = [(groups * inputs, widths[0], plain)] if inner is not None else []
    chain.append((widths[0], widths[1], core))
    if outer is not None:
        chain.append((widths[1], groups * outputs, plain))
    return [
        (
            "Conv2d",
            {"in_channels": a, "out_channels": b, **how, "groups": groups, "bias": bias and index == len(chain) - 1},
        )
        for index, (a, b, how) in enumerate(chain)
    ]


def assemble(parts: Sequence[Part]) -> nn.Sequential:
    """Modules as they are described, with weights that say nothing."""
    return nn.Sequential(*(MODULES[kind](**_tuples(arguments)) for kind, arguments in parts))


def _tuples(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that came from json, as torch has them."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in arguments.items()}


def rebuild(model: nn.Module, structure: Structure) -> None:
    """Put factors in the place of layers, in place; their weights are to be loaded then."""
    for path, parts in structure.items():
        layer = model.get_submodule(path)
        model.set_submodule(path, assemble(parts).to(next(layer.parameters())).train(layer.training))


def twin(layer: nn.Module, ranks: Ranks, factors: Sequence[Tensor]) -> nn.Sequential:
    """The factorised twin of a layer.

    Args:
        layer: With its bias, device, type and mode.
        ranks: Of the inputs and outputs.
        factors: V (groups, r, inputs), G (groups, s, r, k, k) and U (groups, outputs, s), but for those left out.
    """
    made = assemble(parts_of(layer, ranks))
    with torch.no_grad():
        for module, factor in zip(made, factors, strict=True):
            assert isinstance(module.weight, Tensor)
            module.weight.copy_(factor.reshape(module.weight.shape))
        if (bias := bias_of(layer)) is not None:
            assert isinstance(made[-1].bias, Tensor)
            made[-1].bias.copy_(bias)
    made.to(next(layer.parameters())).train(layer.training)
    is_channels_last = isinstance(layer, nn.Conv2d) and not layer.weight.is_contiguous()
    return made.to(memory_format=torch.channels_last) if is_channels_last else made
