"""PSPNet-R101 to PSPNet-R18 on Cityscapes by ChannelTransform: the fourth headline of arXiv 2303.13212 (+4.66 mIoU).

    FILE=recipes/cityscapes_pspnet101_pspnet18.py
    limbeck train $FILE:teacher --data DIR --out runs/pspnet101
    limbeck distill $FILE --data DIR --teacher runs/pspnet101 --out runs/pspnet18
    limbeck train $FILE:alone --data DIR --out runs/alone

DIR holds leftImg8bit and gtFine. Of the paper only the gain is known. What it leaves open is as in the nearest source,
MGD (arXiv 2205.01529): backbones from ImageNet, 40,000 steps of 8 crops, SGD at 0.01 with poly decay, an auxiliary head
at 0.4, features of the backbone's last stage, weight 2e-5. Not run on the real data.
"""

from dataclasses import replace

import timm
import torch.nn.functional as F
from segmentation_models_pytorch.decoders.pspnet.decoder import PSPDecoder
from torch import nn
from torchvision.models.segmentation.fcn import FCNHead

from limbeck.tasks.options import MatchOptions, TeacherOptions
from limbeck.tasks.semantic.recipe import Data, distill, train
from limbeck.training.recipe import Budget, Recipe

STEPS_PER_EPOCH = 2975 // 8
BUDGET = Budget(
    epochs=round(40_000 / STEPS_PER_EPOCH),
    batch_size=8,
    loaded_rate=1.0,
    learning_rate=0.01,
    weight_decay=5e-4,
    schedule="poly",
    warmup_epochs=0,
    clip=None,
)


def cityscapes_pspnet101_pspnet18(
    data: Data, teacher: str, backbone: str = "timm:resnet18", teacher_check: bool = True, budget: Budget = BUDGET
) -> Recipe:
    """The distilled student: Cityscapes, the teacher's run, and where the student's ImageNet weights are."""
    model, layer = f"{__file__}:pspnet18", ("backbone.layer4",)
    matching = MatchOptions(student_layer=layer, teacher_layer=layer, weight=(2e-5,))
    options = TeacherOptions(teacher_check=teacher_check)
    return distill(
        cropped(data), teacher, model, student_backbone=backbone, matching=matching, teacher_options=options,
        budget=budget,
    )  # fmt: skip


def alone(data: Data, backbone: str = "timm:resnet18", budget: Budget = BUDGET) -> Recipe:
    """The student alone, with the same budget."""
    return train(cropped(data), f"{__file__}:pspnet18", backbone=backbone, budget=budget)


def teacher(data: Data, backbone: str = "timm:resnet101", budget: Budget = BUDGET) -> Recipe:
    """The teacher."""
    return train(cropped(data), f"{__file__}:pspnet101", backbone=backbone, budget=budget)


def cropped(data: Data) -> Data:
    return replace(data, crop=data.crop or (512, 1024))


def pspnet18(num_classes: int) -> nn.Module:
    return PSPNet("resnet18", num_classes, width=128)


def pspnet101(num_classes: int) -> nn.Module:
    return PSPNet("resnet101", num_classes, width=512)


class PSPNet(nn.Module):
    """Features at an eighth of the image, pooled at four scales; an auxiliary head on the stage before the last."""

    def __init__(self, backbone: str, classes: int, width: int):
        super().__init__()
        self.backbone = timm.create_model(backbone, features_only=True, out_indices=(3, 4), output_stride=8)
        before_last, last = self.backbone.feature_info.channels()
        self.decoder = PSPDecoder([last], out_channels=width, dropout=0.1)
        self.classifier = nn.Conv2d(width, classes, 1)
        self.auxiliary = FCNHead(before_last, classes)

    def forward(self, images):
        before_last, last = self.backbone(images)
        maps = {"out": self.classifier(self.decoder([last])), "aux": self.auxiliary(before_last)}
        return {name: F.interpolate(each, images.shape[-2:], mode="bilinear") for name, each in maps.items()}
