"""Tiny detectors, and a picture with an object, that several tests share."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from limbeck.data.inputs import Inputs
from limbeck.models.model import Model
from limbeck.tasks.detection.models import build_detector, find_encoder
from limbeck.tasks.detection.pyramids import levels_of_backbone


def detector(
    head: str = "retinanet", backbone: str = "test_efficientnet", classes: int = 2, seed: int = 0
) -> nn.Module:
    """A detector that looks at few regions, so that a step is fast."""
    torch.manual_seed(seed)
    model = build_detector(f"torchvision:{head}/timm:{backbone}", [f"class {index}" for index in range(classes)]).module
    if head in ("fasterrcnn", "maskrcnn"):
        model.rpn._post_nms_top_n = {"training": 32, "testing": 32}
        model.roi_heads.fg_bg_sampler.batch_size_per_image = 32
        model.roi_heads.detections_per_img = 5
    return model


def model_of(module: nn.Module, classes: Sequence[str] = ("a", "b")) -> Model:
    """A detector of torchvision as its builder gives it."""
    return Model(module, Inputs(), list(classes), find_encoder(module), find_levels=levels_of_backbone)


def picture(height: int = 96, width: int = 128, batch: int = 1) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """A bright square of the second class on a dark ground, and its target as a detector takes it."""
    image = torch.full((3, height, width), 0.1)
    image[:, 24:72, 40:88] = 0.9
    target = {"boxes": torch.tensor([[40.0, 24, 88, 72]]), "labels": torch.tensor([2])}
    target["masks"] = (image[:1] > 0.5).to(torch.uint8)
    return [image] * batch, [target] * batch
