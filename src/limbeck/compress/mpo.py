"""A linear layer as a matrix product operator of two sites."""

from __future__ import annotations

from math import isqrt

import torch
from torch import Tensor, nn


class MPO(nn.Module):
    """A linear layer whose weight is a matrix product operator (a tensor-train matrix, arXiv 1509.06569) of two sites.

    It holds the weights of a layer in less space, but takes longer than the layer, since the contraction has more
    multiplications than the matrix product: two factors (SVD) save both.

    Args:
        in_features, out_features: As of ``nn.Linear``.
        rank: Of the bond between the two sites.
        bias: Whether it has one.
    """

    def __init__(self, in_features: int, out_features: int, rank: int, bias: bool = True):
        super().__init__()
        self.inputs, self.outputs = sites(in_features), sites(out_features)
        self.first = nn.Parameter(torch.zeros(self.outputs[0], self.inputs[0], rank))
        self.second = nn.Parameter(torch.zeros(rank, self.outputs[1], self.inputs[1]))
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None

    def forward(self, x: Tensor) -> Tensor:  # (..., in_features) -> (..., out_features)
        split = x.reshape(*x.shape[:-1], *self.inputs)
        y = torch.einsum("oir,rpj,...ij->...op", self.first, self.second, split).flatten(-2)
        return y if self.bias is None else y + self.bias

    @torch.no_grad()
    def load(self, weight: Tensor, bias: Tensor | None) -> None:
        """Take the best approximation of a weight (outputs, inputs): a truncated singular value decomposition."""
        matrix = by_sites(weight.double(), self.outputs, self.inputs)
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        rank = self.first.shape[-1]
        scale = values[:rank].sqrt()
        self.first.copy_((left[:, :rank] * scale).view(self.first.shape))
        self.second.copy_((scale[:, None] * right[:rank]).view(self.second.shape))
        if self.bias is not None and bias is not None:
            self.bias.copy_(bias)


def by_sites(weight: Tensor, outputs: tuple[int, int], inputs: tuple[int, int]) -> Tensor:
    """A weight (outputs, inputs) as the matrix between the two sites, of which a bond's rank is the rank."""
    split = weight.view(*outputs, *inputs).permute(0, 2, 1, 3)
    return split.reshape(outputs[0] * inputs[0], outputs[1] * inputs[1])


def sites(features: int) -> tuple[int, int]:
    """Two factors of a width, as near to each other as there are.

    >>> sites(768), sites(7)
    ((24, 32), (1, 7))
    """
    first = next(each for each in range(isqrt(features), 0, -1) if features % each == 0)
    return first, features // first
