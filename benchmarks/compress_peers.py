"""A trained CIFAR network at the same share of saved parameters by others and by limbeck, before and after a pass.

    pip install tensorly tensorly-torch torch-pruning
    python benchmarks/compress_peers.py --data DIR --model RUN

RUN is what ``benchmarks/compress.py`` takes. Others: truncated HOSVD of the weights by tensorly (Tucker-2, the same
part of both channels in every layer) and by tensorly-torch (Tucker of all four modes, the same rank fraction in every
layer), and whole channels pruned by their magnitude by torch-pruning (of each layer, or of all layers together); the
last linear layer, which has few weights, stays. Parts are found by bisection, so that at least the ratio is saved.
After a pass: all at once by KD, ours by slices too, on the same images. Figures are kept in ``--out``, so it can be
broken off and started again.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from statistics import mean, stdev

import tensorly
import torch
import tyro
from measure import circumstances
from tensorly.decomposition import partial_tucker
from torch import nn

from compress import RATE, Trial, distil
from limbeck import distill_slices, factorise
from limbeck.compress.cost import parameters_of
from limbeck.tasks.classification.models import build_classifier

STEPS = 8  # of a bisection
Make = Callable[[nn.Module, float], nn.Module]  # a smaller copy by a part that is kept, from 0 to 1


def main(
    data: str,
    model: Path,
    out: Path = Path("runs/compress_peers.json"),
    ratios: tuple[float, ...] = (0.5, 0.7),
    seeds: tuple[int, ...] = (0, 1, 2),
    train: int = 1280,
    test: int = 2000,
) -> None:
    """Measure, and print the table as Markdown: top-1 in %, mean and deviation over the seeds.

    Args:
        data: The CIFAR-10 copy.
        model: Folder of the trained run.
        out: File of the figures.
        ratios: Parts of the parameters that are saved.
        seeds: Of the images and their order.
        train: Training images, without labels.
        test: Images that are measured on.
    """
    torch.set_num_threads(1)
    warnings.filterwarnings(
        "ignore", "Trying to compute SVD with n_eigenvecs"
    )  # of the iteration, which does not matter
    tensorly.set_backend("pytorch")
    out.parent.mkdir(parents=True, exist_ok=True)
    figures: dict[str, list[float]] = json.loads(out.read_text()) if out.is_file() else {}
    original = build_classifier(str(model), [], None)
    original.module.eval()
    for seed in seeds:
        trial = Trial(original, data, seed, train, test)
        for ratio in ratios:
            measure(trial, ratio, seed, figures, out)
    print(circumstances())
    print(
        f"seeds {seeds}, {train} images, measured on {test}\n\n| saved | how | top-1 % | seconds |\n|---|---|---|---|"
    )
    names = dict.fromkeys(name.partition(", seed")[0] for name in figures)
    for name in names:
        tops, seconds = zip(*(row for key, row in figures.items() if key.startswith(f"{name}, seed")), strict=True)
        deviation = f" ± {stdev(tops):.2f}" if len(tops) > 1 else ""
        print(f"| {name.replace(': ', ' | ')} | {mean(tops):.2f}{deviation} | {mean(seconds):.1f} |")


def measure(trial: Trial, ratio: float, seed: int, figures: dict[str, list[float]], out: Path) -> None:
    """Top-1 and seconds of all ways at one ratio, but for those that are known."""

    def keep(name: str, network: nn.Module, seconds: float) -> None:
        figures[f"{ratio}: {name}, seed {seed}"] = [trial.accuracy(network), seconds]
        out.write_text(json.dumps(figures, indent=1))
        print(name, figures[f"{ratio}: {name}, seed {seed}"], flush=True)

    for name, make in (PEERS | ours(trial)).items():
        if f"{ratio}: {name}, then KD, seed {seed}" in figures:
            continue
        begun = time.process_time()
        network = made_by(make, trial.network, ratio)
        keep(name, network, time.process_time() - begun)
        begun = time.process_time()
        distil(trial.network, network, trial.batches)
        keep(f"{name}, then KD", network, time.process_time() - begun)
    if f"{ratio}: {SLICES}, seed {seed}" not in figures:
        made = factorise(trial.network, ratio=ratio, example=trial.inputs[:1], data=trial.closed)
        begun = time.process_time()
        distill_slices(trial.network, made, trial.batches, inputs="compressed", rate=RATE)
        keep(SLICES, made.model, time.process_time() - begun)
    keep("the original", trial.network, 0.0)


SLICES = "limbeck, in sequence, then slices"


def ours(trial: Trial) -> dict[str, Make]:
    """Factors of the weights, and fitted in sequence, which take the ratio itself."""

    def made(start: str, network: nn.Module, ratio: float) -> nn.Module:
        return factorise(network, ratio=ratio, example=trial.inputs[:1], data=trial.closed, start=start).model

    starts = {"HOSVD, ranks by error, norms anew": "weights", "in sequence": "sequence"}
    return {f"limbeck, {name}": partial(made, start) for name, start in starts.items()}


def made_by(make: Make, network: nn.Module, ratio: float) -> nn.Module:
    """A copy with at least a ratio of the parameters saved; others are asked for the part to keep until that is so."""
    if make not in PEERS.values():
        return make(network, ratio)
    low, high, best = 0.0, 1.0, None
    for _ in range(STEPS):
        middle = (low + high) / 2
        tried = make(deepcopy(network), middle)
        if parameters_of(tried) <= (1 - ratio) * parameters_of(network):
            low, best = middle, tried
        else:
            high = middle
    assert best is not None, f"{ratio} is out of reach"
    return best.eval()


def tucker_2(network: nn.Module, part: float) -> nn.Module:
    for path, layer in convolutions(network).items():
        rank = [max(1, round(part * size)) for size in layer.weight.shape[:2]]
        (core, (left, right)), _ = partial_tucker(layer.weight.detach(), rank, modes=[0, 1], init="svd", n_iter_max=1)
        outputs, inputs = layer.out_channels, layer.in_channels
        strides = [layer.stride, 1] if layer.kernel_size == (1, 1) else [1, layer.stride]
        parts = [  # of a 1x1 the first strides: torch 2.14.1 corrupts memory in the backward of Conv2d(7, 13, 1, 2)
            nn.Conv2d(inputs, rank[1], 1, strides[0], bias=False),
            nn.Conv2d(rank[1], rank[0], layer.kernel_size, strides[1], layer.padding, bias=False),
            nn.Conv2d(rank[0], outputs, 1, bias=False),
        ]
        with torch.no_grad():
            for each, weight in zip(parts, (right.T[:, :, None, None], core, left[:, :, None, None]), strict=True):
                each.weight.copy_(weight)
        network.set_submodule(path, nn.Sequential(*parts))
    return network


def tucker_4(network: nn.Module, part: float) -> nn.Module:
    from tltorch import FactorizedConv

    for path, layer in convolutions(network).items():
        smaller = FactorizedConv.from_conv(
            layer, rank=part, factorization="tucker", decompose_weights=True, implementation="factorized"
        )
        network.set_submodule(path, smaller)
    return network


def pruned(together: bool, network: nn.Module, part: float) -> nn.Module:
    import torch_pruning

    pruner = torch_pruning.pruner.MagnitudePruner(
        network,
        torch.zeros(1, 3, 32, 32),
        importance=torch_pruning.importance.MagnitudeImportance(p=2),
        pruning_ratio=1 - part,
        global_pruning=together,
        ignored_layers=[module for module in network.modules() if isinstance(module, nn.Linear)],
    )
    pruner.step()
    return network


def convolutions(network: nn.Module) -> dict[str, nn.Conv2d]:
    """All but the first, whose three channels are not worth it."""
    found = {path: module for path, module in network.named_modules() if isinstance(module, nn.Conv2d)}
    return {path: module for path, module in found.items() if module.in_channels > 3}


PEERS: dict[str, Make] = {
    "tensorly, Tucker-2": tucker_2,
    "tensorly-torch, Tucker": tucker_4,
    "torch-pruning, each layer": partial(pruned, False),
    "torch-pruning, all layers": partial(pruned, True),
}


if __name__ == "__main__":
    tyro.cli(main)
