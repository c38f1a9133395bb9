"""Adaptive pooling that is exported for images of any size."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

OfNetwork = TypeVar("OfNetwork", bound=nn.Module)


class AdaptivePool(nn.Module):
    """``nn.AdaptiveAvgPool2d`` as two products of matrices, which ONNX has for maps of any size.

    torch.export makes a table of indices of the former, which onnxruntime then reads beyond its end where the size is
    another than the example's (torch 2.14).
    """

    def __init__(self, size: tuple[int, int]):
        super().__init__()
        self.size = size

    def forward(self, maps: Tensor) -> Tensor:  # (B, C, H, W) -> (B, C, *size)
        rows, columns = (_means(into, of) for into, of in zip(self.size, maps.shape[-2:], strict=True))
        return rows @ maps @ columns.T


def _means(into: int, of: int) -> Tensor:
    """A matrix (into, of) that gives the mean of each cell, which overlap where ``of`` is no multiple."""
    cell, position = torch.arange(into)[:, None], torch.arange(of)[None]
    begin, end = cell * of // into, ((cell + 1) * of + into - 1) // into
    return ((position >= begin) & (position < end)) / (end - begin).float()


def with_any_pooling(network: OfNetwork) -> OfNetwork:
    """A network with adaptive pooling that can be exported; a copy, where it has some."""
    if not any(_is_adaptive(each) for each in network.modules()):
        return network
    network = copy.deepcopy(network)
    for path, module in list(network.named_modules()):
        if _is_adaptive(module):
            size = module.output_size
            network.set_submodule(path, AdaptivePool(tuple(size) if isinstance(size, tuple) else (size, size)))
    return network


def _is_adaptive(module: nn.Module) -> bool:
    """Whether it pools to more than one cell; a plain mean is exported as it is."""
    return isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size not in (1, (1, 1))
