"""Instance segmentation: as object detection, with masks."""

from __future__ import annotations

from dataclasses import replace

from limbeck.tasks.detection import KIND as DETECTION
from limbeck.tasks.detection import recipe
from limbeck.tasks.detection.options import Data, LevelOptions, StudentOptions
from limbeck.tasks.detection.recipe import BUDGET
from limbeck.tasks.options import MatchOptions, TeacherOptions
from limbeck.training.recipe import Budget, Recipe


def distill(
    data: Data,
    teacher: str,
    student: str,
    student_options: StudentOptions = StudentOptions(),
    matching: MatchOptions = MatchOptions(),
    levels: LevelOptions = LevelOptions(),
    teacher_options: TeacherOptions = TeacherOptions(),
    budget: Budget = BUDGET,
) -> Recipe:
    """Distil an instance segmenter from a bigger one.

    Args:
        data: Images and objects with outlines.
        teacher: Any detector, as for limbeck distill detection; it need not give masks.
        student: One that gives masks: torchvision:maskrcnn/timm:BACKBONE, torchvision:maskrcnn_resnet50_fpn_v2,
            FILE.py:FUNCTION, or the folder of a finished run.
        student_options: What the student starts from.
        matching: What follows what.
        levels: Where features are read.
        teacher_options: The teacher.
        budget: Optimizer, schedule and length.
    """
    return recipe.distill(
        data, teacher, student, student_options, matching, levels, teacher_options, masks=True, budget=budget
    )


def train(
    data: Data,
    model: str,
    weights: str | None = None,
    backbone: str | None = None,
    frozen_norms: bool = False,
    budget: Budget = BUDGET,
) -> Recipe:
    """Train an instance segmenter alone: to make a teacher, or the baseline with the budget of a distilled student.

    Args:
        data: Images and objects with outlines.
        model: torchvision:maskrcnn/timm:BACKBONE, torchvision:maskrcnn_resnet50_fpn_v2, FILE.py:FUNCTION, or the folder
            of a finished run.
        weights: A .safetensors or .pth file to start from, or pretrained (what torchvision publishes for
            torchvision:NAME, trained on COCO); the outputs of other classes are left out.
        backbone: To start the backbone from: a file with the weights of a classifier, or timm:NAME for published ones.
        frozen_norms: Keep the backbone's batch norms as they were loaded.
        budget: Optimizer, schedule and length.
    """
    return recipe.train(data, model, weights, backbone, frozen_norms, masks=True, budget=budget)


KIND = replace(DETECTION, name="instance", distill=distill, train=train)
