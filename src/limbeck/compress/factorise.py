"""A network with its layers replaced by factors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from limbeck.compress.cost import flops_of, parameters_of
from limbeck.compress.fit import Factors, fit_each, fit_in_sequence
from limbeck.compress.forms import Part, Ranks, parts_of, twin
from limbeck.compress.latency import by_latency
from limbeck.compress.layers import layers_of, weight_of
from limbeck.compress.moments import Moments, Seen, collect, moments_of, nothing_known
from limbeck.compress.norms import renew_norms
from limbeck.compress.passes import Batches, check_batches
from limbeck.compress.ranks import Cost, Curve, allocate, curve_of, least
from limbeck.core.modules import Example

Start = Literal["weights", "data", "sequence"]


@dataclass(frozen=True)
class Row:
    """What became of a layer.

    Args:
        path: Of the layer.
        form: Such as "Tucker" or "SVD".
        ranks: Of its inputs and outputs, of each group.
        parameters: Before and after.
        flops: Before and after, for the example.
        error: The squared error of its outputs on the data, over their square: what the closed form leaves.
    """

    path: str
    form: str
    ranks: Ranks
    parameters: tuple[int, int]
    flops: tuple[int, int]
    error: float


@dataclass(frozen=True)
class Compressed:
    """A compressed copy of a network.

    Args:
        model: The copy.
        structure: What stands in the place of each layer that was factorised, as json takes it.
        rows: What became of these layers, in the order in which they run.
        whole: Why each of the others was left as it is.
        parameters: Of all the network, before and after.
    """

    model: nn.Module
    structure: dict[str, list[Part]]
    rows: list[Row] = field(repr=False)
    whole: dict[str, str] = field(repr=False)
    parameters: tuple[int, int]

    @property
    def ratio(self) -> float:
        """The part of all parameters that was saved."""
        return 1 - self.parameters[1] / self.parameters[0]


def factorise(
    model: nn.Module,
    *,
    ratio: float = 0.5,
    example: Example,
    data: Batches | None = None,
    start: Start | None = None,
    allocation: Literal["error", "uniform"] = "error",
    cost: Cost = "parameters",
    multiple: int = 1,
    keep: tuple[str, ...] = (),
    ranks: Mapping[str, Ranks] | None = None,
    seen: Seen | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Compressed:
    """Replace layers of a network by factors: two for a linear layer or a 1x1 convolution, up to three for any other.

    Args:
        model: Any module; a copy of it is compressed.
        ratio: Part of all the network's parameters (or of what ``cost`` says) to save.
        example: What to call it with: positional, by name, or one tensor.
        data: Batches of such inputs, gone over several times, without labels; a few hundred images are enough.
        start: ``weights``: the best factors of the weights (HOSVD), for which no data are needed; ``data``: those that
            give the layer's outputs best on its inputs; ``sequence``: likewise, layer after layer, from the inputs that
            the compressed network has. By default ``sequence`` where there are data.
        allocation: Ranks by each layer's error, or the same part taken from each layer.
        cost: What ``ratio`` counts: parameters, FLOPs, or the time that the example takes on this machine, which is
            measured layer by layer.
        multiple: Of which the ranks are multiples where layers are wide enough; 16 is faster on many machines.
        keep: Paths of parts that stay as they are.
        ranks: Of every layer to factorise, in place of ``ratio`` and all that goes with it.
        seen: What ``moments_of`` gave for this model and these data, where several ratios are tried.
        say: Told what is being done.

    Raises:
        ValueError: No layer can be factorised; the ratio cannot be reached; or the data are too few, or an iterator.
    """
    if not 0 < ratio < 1:
        raise ValueError(f"ratio is {ratio}; it is a share, above 0 and below 1")
    start = start or ("weights" if data is None else "sequence")
    if data is None and start != "weights":
        raise ValueError(f"start={start!r} looks at what layers take and give: pass data=")
    check_batches(data)
    layers, whole, on_example = _layers_that_run(model, example, keep)
    if start == "weights":
        seen = Seen({path: nothing_known(layers[path]) for path in layers}, 0)
    elif seen is None:
        assert data is not None
        say("moments of what the layers take and give")
        seen = moments_of(model, data, keep)
    positions = {path: (2.0 * on_example[path].positions_in, 2.0 * on_example[path].positions_out) for path in layers}
    if ranks is None:
        say("ranks")
        ranks = _ranks(model, example, layers, whole, seen.moments, positions, ratio, allocation, cost, multiple)
    chosen = {path: ranks[path] for path in layers if ranks.get(path, (None, None)) != (None, None)}
    whole |= {path: "its factors would lose more than they save" for path in layers if path not in chosen}
    if start != "weights":
        _check_enough({path: layers[path] for path in chosen}, seen)
    compressed = deepcopy(model)
    if start == "sequence":
        assert data is not None
        calls = {path: on_example[path].calls for path in chosen}
        factors = fit_in_sequence(model, compressed, chosen, seen.moments, calls, data, say)
    else:
        factors = fit_each(model, chosen, seen.moments, data if start == "data" else None)
        for path, found in factors.items():
            compressed.set_submodule(path, twin(layers[path], chosen[path], found.factors))
        if data is not None:
            say("statistics of batch norms")
            renew_norms(model, compressed, data)
    return Compressed(
        compressed,
        {path: parts_of(layers[path], each) for path, each in chosen.items()},
        [_row(path, layers[path], chosen[path], factors[path], positions[path]) for path in chosen],
        whole,
        (parameters_of(model), parameters_of(compressed)),
    )


def _layers_that_run(
    model: nn.Module, example: Example, keep: tuple[str, ...]
) -> tuple[dict[str, nn.Module], dict[str, str], dict[str, Moments]]:
    """Layers to factorise in the order in which they run, why others are not, and moments on the example."""
    layers, whole = layers_of(model, keep)
    on_example, _ = collect(model, layers, [example])
    whole |= {path: "does not run" for path in layers if path not in on_example}
    if not on_example:
        reasons = "; ".join(f"{path}: {reason}" for path, reason in list(whole.items())[:3])
        raise ValueError(f"{type(model).__name__} has no layer to factorise" + (f" ({reasons})" if reasons else ""))
    return {path: layers[path] for path in on_example}, whole, on_example


def _ranks(
    model: nn.Module,
    example: Example,
    layers: Mapping[str, nn.Module],
    whole: Mapping[str, str],
    moments: Mapping[str, Moments],
    positions: Mapping[str, tuple[float, float]],
    ratio: float,
    allocation: Literal["error", "uniform"],
    cost: Cost,
    multiple: int,
) -> dict[str, Ranks]:
    """The ranks of all layers for a ratio of the whole model."""
    by_parameters = cost == "parameters"
    curves = {
        path: curve_of(layer, moments[path], (1, 1) if by_parameters else positions[path], multiple)
        for path, layer in layers.items()
    }
    if cost == "latency":
        curves, total = by_latency(model, example, layers, curves)
    else:
        total = float(parameters_of(model) if by_parameters else flops_of(model, example))
    fixed = total - sum(curve.whole for curve in curves.values())
    lowest = fixed + sum(map(least, curves.values()))
    if lowest > (1 - ratio) * total:
        raise ValueError(_out_of_reach(model, whole, curves, 1 - lowest / total, ratio, cost))
    return allocate(curves, (1 - ratio) * total - fixed, allocation)


def _out_of_reach(
    model: nn.Module, whole: Mapping[str, str], curves: Mapping[str, Curve], highest: float, ratio: float, cost: Cost
) -> str:
    """Which layers are in the way of a ratio."""
    largest = list(whole)
    if cost == "parameters":
        largest.sort(key=lambda path: -parameters_of(model.get_submodule(path)))
    binding = "; ".join(f"{path or 'the model'} ({whole[path]})" for path in largest[:3])
    most = f"{highest:.3f} of the {cost} of {type(model).__name__} can be saved at most, with ranks of 1"
    layers = f" in {len(curves)} layers"
    return f"ratio {ratio} is out of reach: {most}{layers}" + (f"; what stays whole: {binding}" if binding else "")


def _check_enough(layers: Mapping[str, nn.Module], seen: Seen) -> None:
    """Refuse data that say nothing of some directions of a layer's inputs."""
    for path, layer in layers.items():
        inputs, rows = weight_of(layer).shape[2], seen.moments[path].positions_in
        if rows < inputs:
            times = -(-inputs // max(rows, 1))
            raise ValueError(
                f"{path} takes {inputs} inputs, and {seen.batches} batches of data bring it {rows} rows, too few to "
                f"tell which matter: pass {times} times as much data (--sample), start='weights' (--start weights), or "
                f"keep=({path!r},) (--keep {path})"
            )


def _row(path: str, layer: nn.Module, ranks: Ranks, found: Factors, positions: tuple[float, float]) -> Row:
    bias = layer.bias.numel() if isinstance(layer.bias, Tensor) else 0
    weights = weight_of(layer).numel()
    sizes = [factor.numel() for factor in found.factors]
    at = [positions[1]] * len(sizes)
    if ranks[0] is not None:
        at[0] = positions[0]
    form = "Tucker" if weight_of(layer).shape[3:].numel() > 1 else "SVD"
    flops = (round(weights * positions[1]), round(sum(size * each for size, each in zip(sizes, at, strict=True))))
    return Row(path, form, ranks, (weights + bias, sum(sizes) + bias), flops, found.error)
