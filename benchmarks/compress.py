"""A trained CIFAR network made smaller: how it starts, what its slices and all of it learn; and latency.

    python benchmarks/compress.py --data DIR --model RUN

RUN is a run of ``limbeck train classification --data DIR --size 32 --model benchmarks/cifar_resnet.py:NAME``. Every
figure is kept in ``--out`` as soon as it is there, so the script can be broken off and started again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor, nn
from torchvision.models import resnet34

from limbeck import distill_slices, factorise
from limbeck.compress.ranks import Cost
from limbeck.data.inputs import Preprocess
from limbeck.models.model import Model
from limbeck.tasks.classification.dataset import Images, first_of_each_class
from limbeck.tasks.classification.load import load_images
from limbeck.tasks.classification.models import build_classifier

RATIOS = (0.9, 0.7, 0.5)
CLOSED = 512  # images that the closed forms look at
BATCH = 32
BUDGETS: tuple[tuple[Cost, float], ...] = (("parameters", 0.5), ("flops", 0.53), ("latency", 0.35))


def main(
    data: str, model: Path, out: Path = Path("runs/compress.json"), seed: int = 0, train: int = 2560, test: int = 2000
) -> None:
    """Measure, and print the table as Markdown.

    Args:
        data: The CIFAR-10 copy.
        model: Folder of the trained run.
        out: File of the figures.
        seed: Of the images and their order.
        train: Training images, without labels but for cross entropy.
        test: Images that are measured on.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    figures: dict[str, list[float]] = json.loads(out.read_text()) if out.is_file() else {}

    def measure(name: str, run: Callable[[], list[float]]) -> None:
        if name not in figures:
            figures[name] = run()
            out.write_text(json.dumps(figures, indent=1))
        print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in figures[name]) + " |", flush=True)

    original = build_classifier(str(model), [], None)
    original.module.eval()
    trial = Trial(original, data, seed, train, test)
    measure("original: top-1 %", lambda: [trial.accuracy(original.module)])
    for ratio in RATIOS:
        for start in ("sequence", "data", "weights"):
            measure(f"{ratio}, start {start}: top-1 %, seconds", lambda: trial.start(ratio, start))  # noqa: B023
        for name in ("slices", "slices fed by the original", "global", "hybrid"):
            if name.endswith("original") and ratio < max(RATIOS):
                continue
            measure(f"{ratio}, {name}: top-1 %, seconds", lambda: trial.trained(ratio, name))  # noqa: B023
    for cost, ratio in BUDGETS:
        name = f"ResNet-34 at 224 px, {ratio} of the {cost}: parameters saved, sum of errors, ms before, after, part"
        measure(name, lambda: latency(cost, ratio))  # noqa: B023


class Trial:
    """One network on one seed's images."""

    def __init__(self, original: Model, data: str, seed: int, train: int, test: int):
        train_images, test_images = load_images(data, val_data=None, split=None, on_bad="error", seed=0)
        self.network, self.preprocess = original.module, Preprocess(original.inputs)
        self.inputs, _ = self._tensors(train_images, train, seed)
        self.tests, self.labels = self._tensors(test_images, test, seed)
        self.closed = self.inputs[:CLOSED].split(128)
        self.batches = self.inputs.split(BATCH)

    def _tensors(self, images: Images, count: int, seed: int) -> tuple[Tensor, Tensor]:
        chosen = torch.tensor(first_of_each_class(images, count, seed))
        mixed = chosen[torch.randperm(count, generator=torch.Generator().manual_seed(seed))].tolist()
        pixels = torch.stack([images.read(index) for index in mixed])
        return self.preprocess(pixels), torch.tensor([images.labels[index] for index in mixed])

    @torch.no_grad()
    def accuracy(self, network: nn.Module) -> float:
        network.eval()
        predicted = torch.cat([network(batch).argmax(1) for batch in self.tests.split(500)])
        return 100 * (predicted == self.labels).float().mean().item()

    def start(self, ratio: float, start: str) -> list[float]:
        begun = time.perf_counter()
        made = factorise(self.network, ratio=ratio, example=self.inputs[:1], data=self.closed, start=start)
        return [self.accuracy(made.model), time.perf_counter() - begun]

    def trained(self, ratio: float, name: str) -> list[float]:
        """From the sequential start, one pass over the images: by slices, all at once (KD), or half of it each."""
        made = factorise(self.network, ratio=ratio, example=self.inputs[:1], data=self.closed)
        begun, half = time.perf_counter(), len(self.batches) // 2
        if name == "hybrid":
            distill_slices(self.network, made, self.batches[:half], inputs="compressed", rate=RATE)
            distil(self.network, made.model, self.batches[half:])
        elif name == "global":
            distil(self.network, made.model, self.batches)
        else:
            fed = "original" if name.endswith("original") else "compressed"
            distill_slices(self.network, made, self.batches, inputs=fed, rate=RATE)
        seconds = time.perf_counter() - begun
        return [self.accuracy(made.model), seconds]


RATE = 3e-4


def distil(teacher: nn.Module, student: nn.Module, batches: tuple[Tensor, ...]) -> None:
    """Knowledge distillation at temperature 4 without labels, by Adam with a cosine."""
    student.train()
    optimizer = torch.optim.Adam(student.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(batches))
    for batch in batches:
        with torch.no_grad():
            target = F.softmax(teacher(batch) / 4, 1)
        loss = 16 * F.kl_div(F.log_softmax(student(batch) / 4, 1), target, reduction="batchmean")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@torch.inference_mode()
def latency(cost: Cost, ratio: float) -> list[float]:
    """A ResNet-34 whose weights are random (which makes its ranks nearly uniform), in turns, one image at a time."""
    torch.manual_seed(0)
    network, image = resnet34().eval(), torch.randn(1, 3, 224, 224)
    with torch.inference_mode(False):
        made = factorise(deepcopy(network), ratio=ratio, example=image.clone(), cost=cost, multiple=16)
    times: dict[nn.Module, list[float]] = {network: [], made.model: []}
    for _ in range(31):
        for each, measured in times.items():
            begun = time.perf_counter()
            each(image)
            measured.append(1000 * (time.perf_counter() - begun))
    before, after = times.values()
    part = median(small / large for large, small in zip(before, after, strict=True))
    return [made.ratio, sum(row.error for row in made.rows), median(before), median(after), part]


if __name__ == "__main__":
    torch.set_num_threads(1)
    tyro.cli(main)
