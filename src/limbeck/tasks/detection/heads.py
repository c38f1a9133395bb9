"""torchvision's detectors on any backbone of timm under a feature pyramid."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn
from torchvision.models.detection import FCOS, FasterRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.ssdlite import SSDLiteHead
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from limbeck.tasks.detection.pyramids import CHANNELS, MULTIPLE, Pyramid

ANCHORS = (32, 64, 128, 256, 512)  # pixels, by level


def _two_stage(kind: type[FasterRCNN], backbone: str, classes: int) -> nn.Module:
    pyramid = Pyramid(backbone, (4, 8, 16, 32), LastLevelMaxPool)
    anchors = AnchorGenerator(tuple((size,) for size in ANCHORS), ((0.5, 1.0, 2.0),) * len(ANCHORS))
    levels = ["0", "1", "2", "3"]
    pools = {"box_roi_pool": MultiScaleRoIAlign(levels, 7, 2)}
    if kind is MaskRCNN:
        pools["mask_roi_pool"] = MultiScaleRoIAlign(levels, 14, 2)
    model: nn.Module = kind(pyramid, classes + 1, rpn_anchor_generator=anchors, **pools)
    return model


def _retinanet(backbone: str, classes: int) -> nn.Module:
    sizes = tuple((size, int(size * 2 ** (1 / 3)), int(size * 2 ** (2 / 3))) for size in ANCHORS)
    anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(ANCHORS))
    model: nn.Module = RetinaNet(_above_eighth(backbone), classes + 1, anchor_generator=anchors)
    return model


def _fcos(backbone: str, classes: int) -> nn.Module:
    model: nn.Module = FCOS(_above_eighth(backbone), classes + 1)
    return model


def _ssdlite(backbone: str, classes: int) -> nn.Module:
    anchors = DefaultBoxGenerator([[2, 3]] * len(ANCHORS), min_ratio=10, max_ratio=90)
    norm = partial(nn.BatchNorm2d, eps=1e-3)
    head = SSDLiteHead([CHANNELS] * len(ANCHORS), anchors.num_anchors_per_location(), classes + 1, norm)
    model: nn.Module = SSD(_above_eighth(backbone), anchors, (MULTIPLE, MULTIPLE), classes + 1, head=head)
    return model


def _above_eighth(backbone: str) -> Pyramid:
    return Pyramid(backbone, (8, 16, 32), partial(LastLevelP6P7, CHANNELS, CHANNELS))


HEADS: dict[str, Callable[[str, int], nn.Module]] = {
    "fasterrcnn": partial(_two_stage, FasterRCNN),
    "maskrcnn": partial(_two_stage, MaskRCNN),
    "retinanet": _retinanet,
    "fcos": _fcos,
    "ssdlite": _ssdlite,
}
