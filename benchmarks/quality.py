"""Student alone against distilled by every method, over seeds: same student, teacher, images and budget.

    python benchmarks/quality.py --data cifar10

The teacher is a ResNet-14 of twice the width, which sees all 50,000 images; the student a ResNet-8, which sees 4,000.
Students are trained by limbeck's defaults: only the length of a run and the size of a batch are chosen here. Runs that
--out holds already are taken, so a table can be made in parts: --methods, --seeds. For transformers

    python benchmarks/quality.py --data cifar10 --out runs/transformers --teacher benchmarks/robustness_nets.py:vit \
        --student benchmarks/robustness_nets.py:deit --optimizer adamw --teacher-epochs 8 --epochs 15 \
        --methods ChannelTransform KD ViTKD DeiT
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import tyro
from measure import circumstances

from limbeck.methods.table import METHODS
from limbeck.tasks.classification import recipe as classification
from limbeck.tasks.classification.recipe import Data
from limbeck.tasks.options import MatchOptions, TeacherOptions
from limbeck.training.compare import compare, table
from limbeck.training.recipe import Budget, Recipe
from limbeck.training.usual import Optimizer

NETS = Path(__file__).with_name("cifar_resnet.py")
ELSEWHERE = (  # what needs boxes, masks, or transformers
    *("CrossKD", "DETRDistill", "FGD", "ForegroundTransform", "LD"),
    *("CIRKD", "DeiT", "ViTKD"),
)
HERE = tuple(name for name in METHODS if name not in ELSEWHERE)
AUTO = ("KD@auto", "NKD@auto")  # their own are published numbers; DKD, RKD and SimilarityPreserving have auto anyway


@dataclass(frozen=True)
class Quality:
    """What is compared, and for how long."""

    data: str
    """A folder of images with train/ and test/, such as CIFAR-10 as files; or cifar10:DIR."""
    out: Path = Path("runs/quality")
    methods: tuple[str, ...] = (*HERE, "KD:temperature=2,standardise=True", "ChannelTransform@stages", *AUTO)
    """As limbeck distill --method takes them, each with its own weight and layers; after an @, other layers, or auto
    for the weight."""
    seeds: tuple[int, ...] = (0, 1, 2)
    images: int = 4000
    """Training images of every student."""
    teacher: str = f"{NETS}:resnet14x2"
    student: str = f"{NETS}:resnet8"
    optimizer: Optimizer = "sgd"
    epochs: int = 5
    batch_size: int = 32
    teacher_epochs: int = 2
    workers: int = 1
    """Loader processes, which change no result."""
    threads: int = 1

    def make_teacher(self) -> Recipe:
        """A recipe for the teacher, which sees all images."""
        return classification.train(
            Data(self.data, augment="small", load_size=32),
            self.teacher,
            size=32,
            budget=self.budget(self.teacher_epochs, batch_size=128, seed=0),
        )

    def alone(self, seed: int) -> Recipe:
        """A recipe for the student alone."""
        budget = self.budget(self.epochs, self.batch_size, seed)
        return classification.train(self.of_images(), self.student, size=32, budget=budget)

    def distilled(self, method: str, seed: int) -> Recipe:
        """A recipe for the student beside the teacher."""
        method, _, other = method.partition("@")
        return classification.distill(
            self.of_images(),
            teacher=str(self.out / "teacher-0"),
            student=self.student,
            size=32,
            matching=MatchOptions(method=(method,), weight=("auto",) if other == "auto" else ()),
            layers=other if other not in ("", "auto") else None,
            teacher_options=TeacherOptions(teacher_check=False),  # its own run has measured it
            budget=self.budget(self.epochs, self.batch_size, seed),
        )

    def of_images(self) -> Data:
        return Data(self.data, images=self.images, augment="small", load_size=32)

    def budget(self, epochs: int, batch_size: int, seed: int) -> Budget:
        return Budget(
            epochs=epochs,
            batch_size=batch_size,
            optimizer=self.optimizer,
            workers=self.workers,
            evaluate_every=epochs,
            seed=seed,
        )


def main(quality: Quality) -> None:
    started = time.time()
    torch.set_num_threads(quality.threads)
    print(circumstances())
    (teacher,) = compare({"teacher": lambda seed: quality.make_teacher()}, [0], quality.out)
    arms = {"alone": quality.alone, **{method: partial(quality.distilled, method) for method in quality.methods}}
    results = compare(arms, quality.seeds, quality.out)
    print(f"\n{table(results)}\n\nteacher {teacher.values[0]:.2%}; {(time.time() - started) / 60:.0f} minutes")


if __name__ == "__main__":
    main(tyro.cli(Quality))
