"""Random small networks, whose prepared teacher is compared with the plain one channel by channel.

python -m tests.teacher.random_networks 500
    500 networks (seeds 0 to 505): 0 differ, 488 of 1,647 norms folded, 148 warned; torch 2.14.1, AMD EPYC, one thread.
"""

import itertools
import random
import sys
import time
import warnings
from collections import Counter

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from limbeck import Capture, Layer, prepare_teacher
from tests.networks import randomize_norms

CHANNELS = 4


class Pairs(nn.Module):
    """A list of two maps to a list of two: the first convolved and normalised, the second as it came."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = conv(), nn.BatchNorm2d(CHANNELS)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        return [self.norm(self.conv(maps[0])), maps[1]]


class Residual(nn.Module):
    """A block whose convolution's output is sometimes added to what the norm makes of it."""

    def __init__(self, around: str):
        super().__init__()
        self.conv, self.norm, self.around = conv(), nn.BatchNorm2d(CHANNELS), around

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.norm(y) + {"input": x, "convolution": y, "nothing": 0.0}[self.around]


class ChannelsLast(nn.Module):
    """A layer norm over the channels of a map that is kept as (B, H, W, C) inside."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def conv() -> nn.Conv2d:
    groups = random.choice([1, 1, 2, CHANNELS])
    return nn.Conv2d(
        CHANNELS, CHANNELS, random.choice([1, 3]), padding="same", groups=groups, bias=random.random() < 0.5
    )


def reparametrized() -> nn.Module:
    return torch.nn.utils.parametrizations.weight_norm(conv())


MODULES = {
    "conv": conv,
    "norm": lambda: nn.BatchNorm2d(CHANNELS, affine=random.random() < 0.8),
    "frozen": lambda: torchvision.ops.FrozenBatchNorm2d(CHANNELS),
    "sequence": lambda: nn.Sequential(conv(), nn.BatchNorm2d(CHANNELS), nn.ReLU(inplace=random.random() < 0.5)),
    "residual": lambda: Residual(random.choice(["input", "convolution", "nothing"])),
    "pairs": Pairs,
    "layer norm": ChannelsLast,
    "weight norm": lambda: nn.Sequential(reparametrized(), nn.BatchNorm2d(CHANNELS)),
}
FUNCTIONS = {
    "add": lambda net, module, a, b: a + b,
    "in place": lambda net, module, a, b: a.relu_(),
    "scaled in place": lambda net, module, a, b: a.mul_(1.001),
    "large": lambda net, module, a, b: 300 * a,
    "channel added": lambda net, module, a, b: a + 0.01 * b[:, :1],
    "viewed": lambda net, module, a, b: a + b.view(len(b), -1).mean(1)[:, None, None, None],
    "weights read": lambda net, module, a, b: a * (1 + sum(p.data.mean() for p in module.parameters())),
    "list": lambda net, module, a, b: torch.stack([a, b]).amax(0),
    "convolved by hand": lambda net, module, a, b: F.conv2d(a, weight_of(module, a)),
}


def weight_of(module: nn.Module, like: Tensor) -> Tensor:
    weights = [p for p in module.parameters() if p.shape == (CHANNELS, CHANNELS, 1, 1)]
    return weights[0] if weights else like.new_ones(CHANNELS, CHANNELS, 1, 1) / CHANNELS


class RandomNetwork(nn.Module):
    """Steps drawn by a seed: each makes a map (B, 4, H, W) of one or two that were made before, often the last ones.

    The output is some of the maps, side by side.
    """

    def __init__(self, seed: int):
        super().__init__()
        random.seed(seed)
        torch.manual_seed(seed)
        self.modules_by_name = nn.ModuleDict()
        self.steps = []
        for index in range(random.randint(3, 9)):
            kind = random.choice([*MODULES, "conv", "conv and norm", "conv and norm", *random.sample([*FUNCTIONS], 3)])
            inputs = [max(0, index - random.choice([0, 0, 0, 1, 2])) for _ in range(2)]
            if kind == "conv and norm":
                self.steps += [(self._module("conv", index), inputs), (self._module("norm", index, new=True), None)]
            else:
                self.steps.append((kind if kind in FUNCTIONS else self._module(kind, index), inputs))
        self.chosen = random.sample(range(len(self.steps)), min(3, len(self.steps)))

    def _module(self, kind: str, index: int, new: bool = False) -> str:
        same = [name for name in self.modules_by_name if name.startswith(kind)]
        if same and not new and random.random() < 0.15:
            return random.choice(same)  # shared
        self.modules_by_name[f"{kind}_{index}"] = MODULES[kind]()
        return f"{kind}_{index}"

    def forward(self, x: Tensor) -> Tensor:
        maps = [x + 0]
        for step, inputs in self.steps:
            a, b = (maps[min(i, len(maps) - 1)] for i in inputs) if inputs else (maps[-1], maps[-1])
            if step in FUNCTIONS:
                some = next(iter(self.modules_by_name.values()), self)
                maps.append(FUNCTIONS[step](self, some, a, b))
            elif step.startswith("pairs"):
                maps += self.modules_by_name[step]([a, b])
            else:
                maps.append(self.modules_by_name[step](a))
        return torch.cat([maps[1 + index] for index in self.chosen], 1)


def readable(network: nn.Module, x: Tensor) -> list[Layer]:
    """The output and some other layers, of those that run once, give a tensor, and are not changed in place."""
    names = [name for name, _ in network.named_modules() if name]
    layers = []
    for name in ["", *random.sample(names, min(3, len(names)))]:
        capture = Capture(network, [Layer(name)])
        try:
            capture(x)
        except (RuntimeError, TypeError):
            pass
        else:
            layers.append(Layer(name))
        finally:
            capture.remove()
    return layers


@torch.no_grad()
def compare(seed: int) -> Counter[str]:
    """Prepare the network of a seed, and run it beside the plain one on other inputs than it was prepared with."""
    network = randomize_norms(RandomNetwork(seed).double(), seed)
    example, x = torch.randn(2, 2, CHANNELS, 6, 5, dtype=torch.float64)
    layers = readable(network, x)
    if not layers:
        return Counter(fail_unprepared=1)  # as when one views what another has permuted
    capture = Capture(network, layers)
    expected = capture(x)[1]
    capture.remove()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        teacher = prepare_teacher(network, layers, example=(example,), channels_last=random.random() < 0.5)
    prepared = teacher(x)
    differs = 0
    for layer, feature in expected.items():
        error = (prepared[layer] - feature).abs().amax((0, 2, 3))
        differs += bool((error > 1e-9 * feature.abs().amax((0, 2, 3)).clamp_min(1e-3)).any())
    norms = [sum(getattr(m, "running_var", None) is not None for m in n.modules()) for n in (network, teacher.model)]
    return Counter(
        networks=1,
        differ=bool(differs),
        norms=norms[0],
        folded=norms[0] - norms[1],
        warned=bool(said),
        switched_off=sum("=False" in str(warning.message) for warning in said),
    )


def main(count: int) -> None:
    started = time.perf_counter()
    total: Counter[str] = Counter()
    seeds = itertools.count()
    while total["networks"] < count:
        seed = next(seeds)
        result = compare(seed)
        total.update(result)
        if result["differ"]:
            print(f"the network of seed {seed} differs")
    print(dict(total), f"in {time.perf_counter() - started:.0f} s, torch {torch.__version__}")


if __name__ == "__main__":
    main(int(sys.argv[1]))
