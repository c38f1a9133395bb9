"""Second moments of what a layer takes and gives: all that the closed forms need to know of the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.compress.layers import bias_of, layers_of, weight_of
from limbeck.compress.passes import Batches, watch


@dataclass
class Moments:
    """Of one layer, summed over batches and positions, in float64 on the CPU.

    Args:
        inputs: (groups, inputs, inputs), over the positions of the input.
        outputs: (groups, outputs, outputs) without the bias, over those of the output; of a layer with a kernel alone.
        positions_in, positions_out: Number of positions that were summed.
        calls: How often the layer ran in a pass.
    """

    inputs: Tensor
    outputs: Tensor
    positions_in: int = 0
    positions_out: int = 0
    calls: int = 0

    def see(self, layer: nn.Module, x: Tensor, y: Tensor) -> None:
        """Add what a layer took and gave."""
        rows = by_group(layer, x) if has_kernel(layer) else patches(layer, x, None)  # of a stride, those that count
        self.inputs += product(rows, rows)
        self.positions_in += rows.shape[2]
        self.calls += 1
        if has_kernel(layer):
            columns = by_group(layer, without_bias(layer, y))
            self.outputs += product(columns, columns)
            self.positions_out += columns.shape[2]
        else:
            self.positions_out += y.numel() // weight_of(layer).shape[:2].numel()


@dataclass(frozen=True)
class Seen:
    """What closed forms need to know of the data, whatever the ratio is.

    Args:
        moments: Of the layers that can be factorised, in the order in which they run.
        batches: How many there were.
    """

    moments: dict[str, Moments]
    batches: int


def moments_of(model: nn.Module, data: Batches, keep: tuple[str, ...] = ()) -> Seen:
    """The moments of a network's layers, for ``factorise`` at several ratios.

    Args:
        model: As ``factorise`` is to get it.
        data: Batches of inputs, gone over once.
        keep: Paths of parts that are to stay as they are.
    """
    return Seen(*collect(model, layers_of(model, keep)[0], data))


def nothing_known(layer: nn.Module) -> Moments:
    """Moments of inputs that are independent of each other: the closed forms then keep to the weights (HOSVD)."""
    weight = weight_of(layer).detach().double().cpu()
    groups, _, inputs, _, _ = weight.shape
    rows = weight.flatten(2)
    return Moments(torch.eye(inputs, dtype=torch.float64).expand(groups, -1, -1), rows @ rows.mT)


def collect(model: nn.Module, layers: Mapping[str, nn.Module], batches: Batches) -> tuple[dict[str, Moments], int]:
    """The moments of layers in one pass, in the order in which they run; and how many batches there were."""
    seen: dict[str, Moments] = {}
    count = 0

    def see(path: str, x: Tensor, y: Tensor) -> None:
        layer = layers[path]
        if path not in seen:
            groups, outputs, inputs, _, _ = weight_of(layer).shape
            outputs = outputs if has_kernel(layer) else 0
            seen[path] = Moments(
                torch.zeros(groups, inputs, inputs, dtype=torch.float64),
                torch.zeros(groups, outputs, outputs, dtype=torch.float64),
            )
        seen[path].see(layer, x, y)

    def counted() -> Batches:
        nonlocal count
        for batch in batches:
            count += 1
            yield batch

    watch(model, {path: partial(see, path) for path in layers}, counted())
    return seen, count


def has_kernel(layer: nn.Module) -> bool:
    """Whether it has a kernel of more than one position."""
    return weight_of(layer).shape[3:].numel() > 1


def without_bias(layer: nn.Module, output: Tensor) -> Tensor:
    bias = bias_of(layer)
    if bias is None:
        return output
    return output - (bias[:, None, None] if isinstance(layer, nn.Conv2d) else bias)


def by_group(layer: nn.Module, features: Tensor) -> Tensor:
    """Features (B, C, H, W) of a convolution, or (..., C), as (groups, channels of a group, positions)."""
    if isinstance(layer, nn.Conv2d):
        channels_first = features.movedim(1, 0).flatten(1)  # (C, B * H * W)
        return channels_first.reshape(layer.groups, -1, channels_first.shape[1])
    return features.reshape(-1, features.shape[-1]).T[None]


def patches(layer: nn.Module, x: Tensor, encode: Tensor | None) -> Tensor:
    """What the kernel of a layer is multiplied with at each position, (groups, r * k * k, positions of the output).

    Args:
        layer: A convolution, or a linear layer, which has x at its positions.
        x: What the layer takes.
        encode: (groups, r, inputs), which x goes through first; ``None`` takes it as it is.
    """
    if not isinstance(layer, nn.Conv2d):
        return by_group(layer, x)
    if encode is not None:
        kernel = encode.to(x).flatten(0, 1)[:, :, None, None]  # (groups * r, inputs, 1, 1)
        x = F.conv2d(x, kernel, groups=layer.groups)
    padding = layer._reversed_padding_repeated_twice
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = F.pad(x, [int(side) for side in padding], mode=mode)
    unfolded = F.unfold(x, layer.kernel_size, layer.dilation, 0, layer.stride)  # (B, C * k * k, positions)
    rows = unfolded.movedim(1, 0).flatten(1)
    return rows.reshape(layer.groups, -1, rows.shape[1])


def product(left: Tensor, right: Tensor) -> Tensor:
    """Sums over positions of products: (groups, a, n) and (groups, b, n) to (groups, a, b), float64 on the CPU."""
    return (left.float() @ right.float().mT).double().cpu()
