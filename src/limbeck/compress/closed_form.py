"""The best factors of a layer in closed form, from moments.

With S the second moments of the inputs, z = V x and the moments of z's patches, the factors are found in two steps. V
keeps the directions of the inputs that matter most to the outputs: the leading eigenvectors of S^1/2 (sum_k W_k' W_k)
S^1/2, taken back through S^-1/2. G and U are the regression of the outputs on the patches of z with the rank s
(reduced-rank regression, Izenman 1975): least squares, then the leading directions of what it gives. Where nothing is
known of the data, the moments are identities, and this is the truncated higher-order singular value decomposition of
the weight.

Directions of which the data say little keep the weight that they had: a small multiple of the identity is added to
the moments, as if so little had been seen of the layer as it was. So a full rank is lossless also with channels that
are always zero, and nothing is divided by zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

FLOOR = 1e-4  # of the mean second moment, added to each


@dataclass
class Pairs:
    """Moments of patches z and outputs y: summed zz', yz' and the summed square of y, each for a group."""

    patches: Tensor  # (groups, d, d)
    cross: Tensor  # (groups, outputs, d)
    energy: Tensor  # (groups)


def floored(moment: Tensor) -> Tensor:
    """Second moments (groups, d, d) with the floor."""
    size = moment.shape[-1]
    mean = moment.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-30)
    return moment + FLOOR * mean[:, None, None] * torch.eye(size, dtype=moment.dtype)


def root(moment: Tensor) -> tuple[Tensor, Tensor]:
    """The symmetric square root of moments with the floor, and its inverse."""
    values, vectors = torch.linalg.eigh(floored(moment))
    values = values.clamp(min=1e-30)
    return (vectors * values.sqrt()[:, None]) @ vectors.mT, (vectors / values.sqrt()[:, None]) @ vectors.mT


def input_matrix(weight: Tensor, half: Tensor) -> Tensor:
    """How much each direction of the whitened inputs matters to the outputs, (groups, inputs, inputs).

    Args:
        weight: (groups, outputs, inputs, k, k).
        half: Square root of the inputs' moments.
    """
    by_input = weight.movedim(2, 1).flatten(2)  # (groups, inputs, outputs * k * k)
    return half @ (by_input @ by_input.mT) @ half


def input_basis(weight: Tensor, moment: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """V (groups, rank, inputs) with orthonormal rows, and D (groups, inputs, rank) so that D V x is nearly x."""
    half, inverse = root(moment)
    _, vectors = torch.linalg.eigh(input_matrix(weight, half))
    kept = vectors[:, :, -rank:].flip(2)
    orthonormal, triangle = torch.linalg.qr(inverse @ kept)
    return orthonormal.mT, half @ kept @ triangle.mT


def regress(pairs: Pairs, prior: Tensor, rank: int | None) -> tuple[Tensor, Tensor | None]:
    """The best map of a rank from patches to outputs, as U and G with U G z nearly y.

    Args:
        pairs: The moments.
        prior: The map (groups, outputs, d) where the data say nothing.
        rank: Of the map; ``None``: any.

    Returns:
        G (groups, rank, d) and U (groups, outputs, rank) with orthonormal columns; without a rank the map and ``None``.
    """
    moment = floored(pairs.patches)
    added = moment - pairs.patches
    best = torch.linalg.solve(moment, (pairs.cross + prior @ added).mT).mT
    if rank is None:
        return best, None
    outputs, size = best.shape[1:]
    if outputs <= size:
        _, vectors = torch.linalg.eigh(best @ moment @ best.mT)
        left = vectors[:, :, -rank:].flip(2)
    else:
        scaled = best @ torch.linalg.cholesky(moment)  # the floor keeps it positive
        _, vectors = torch.linalg.eigh(scaled.mT @ scaled)
        left, _ = torch.linalg.qr(scaled @ vectors[:, :, -rank:].flip(2))
    return left.mT @ best, left


def error_of(pairs: Pairs, made: Tensor) -> float:
    """The squared error of a map (groups, outputs, d) on the data, over the summed square of the outputs."""
    explained = 2 * (made * pairs.cross).sum() - (made @ pairs.patches * made).sum()
    return float(1 - explained / pairs.energy.sum().clamp(min=1e-30))


def input_tails(weight: Tensor, moment: Tensor) -> Tensor:
    """Relative errors (inputs + 1) by the rank of the inputs, from none on."""
    half, _ = root(moment)
    return tails(torch.linalg.eigvalsh(input_matrix(weight, half)))


def output_tails(weight: Tensor, moment_in: Tensor, moment_out: Tensor) -> Tensor:
    """Relative errors (outputs + 1, or inputs + 1 if that is less) by the rank of the outputs, from none on.

    Args:
        weight: (groups, outputs, inputs, k, k).
        moment_in, moment_out: Of inputs and outputs; the latter are empty for a layer without a kernel.
    """
    if moment_out.numel():
        return tails(torch.linalg.eigvalsh(moment_out))
    matrix = weight.flatten(2)
    if matrix.shape[1] <= matrix.shape[2]:
        return tails(torch.linalg.eigvalsh(matrix @ moment_in @ matrix.mT))
    half, _ = root(moment_in)
    return tails(torch.linalg.eigvalsh(input_matrix(weight, half)))


def tails(values: Tensor) -> Tensor:
    """What is lost of a sum when the largest 0, 1, 2, ... of ascending values (groups, n) are kept, as a part of it."""
    summed = values.clamp(min=0).sum(0).cumsum(0)
    lost = torch.cat([summed.flip(0), summed.new_zeros(1)])
    return lost / lost[0].clamp(min=1e-30)
