"""Faster R-CNN R101 to R50 on COCO by ChannelTransform: the second headline of arXiv 2303.13212 (+3.9 box AP).

    FILE=recipes/coco_fasterrcnn101_fasterrcnn50.py
    limbeck train $FILE:teacher --data DIR --out runs/fasterrcnn101
    limbeck distill $FILE --data DIR --teacher runs/fasterrcnn101 --out runs/fasterrcnn50
    limbeck train $FILE:alone --data DIR --out runs/alone

DIR holds annotations/instances_train2017.json and train2017, and val2017 likewise. Of the paper only the gain is known.
What it leaves open is as in the nearest source, MGD (arXiv 2205.01529), whose student alone has 38.4: backbones from
ImageNet with frozen norms, 24 epochs of 16 images, SGD at 0.02, clipped at 35, the pyramid's four levels, weight 5e-7.
Its teacher, a Cascade Mask R-CNN X101, is none of torchvision's: an R101 stands in. Not run on the real data.
"""

from dataclasses import replace

from limbeck.tasks.detection.recipe import Data, LevelOptions, StudentOptions, distill, train
from limbeck.tasks.options import MatchOptions, TeacherOptions
from limbeck.training.recipe import Budget, Recipe

STEPS_PER_EPOCH = 118_287 // 16
BUDGET = Budget(
    epochs=24,
    batch_size=16,
    loaded_rate=1.0,
    learning_rate=0.02,
    weight_decay=1e-4,
    schedule="two-steps",
    warmup_epochs=500 / STEPS_PER_EPOCH,
    clip=35.0,
)
STUDENT, TEACHER = "torchvision:fasterrcnn/timm:resnet50", "torchvision:fasterrcnn/timm:resnet101"


def coco_fasterrcnn101_fasterrcnn50(
    data: Data, teacher: str, backbone: str = "timm:resnet50", teacher_check: bool = True, budget: Budget = BUDGET
) -> Recipe:
    """The distilled student: COCO, the teacher's run, and where the student's ImageNet weights are."""
    return distill(
        skipping(data), teacher, STUDENT,
        StudentOptions(student_backbone=backbone, frozen_norms=True),
        MatchOptions(weight=(5e-7,)),
        LevelOptions(reduction="sum"),
        TeacherOptions(teacher_check=teacher_check),
        budget=budget,
    )  # fmt: skip


def alone(data: Data, backbone: str = "timm:resnet50", budget: Budget = BUDGET) -> Recipe:
    """The student alone, with the same budget."""
    return train(skipping(data), STUDENT, backbone=backbone, frozen_norms=True, budget=budget)


def teacher(data: Data, backbone: str = "timm:resnet101", budget: Budget = BUDGET) -> Recipe:
    """The teacher."""
    return train(skipping(data), TEACHER, backbone=backbone, frozen_norms=True, budget=budget)


def skipping(data: Data) -> Data:
    """COCO has a few boxes without width or height: left out, and counted."""
    return replace(data, on_bad_data="skip")
