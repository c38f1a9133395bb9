"""A small FCOS: half a MobileNetV2 under a pyramid, and one convolution instead of four in each head."""

from functools import partial

from torch import nn
from torchvision.models.detection.fcos import FCOS, FCOSHead
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from limbeck.tasks.detection.pyramids import CHANNELS, Pyramid


def light_fcos(num_classes: int) -> nn.Module:
    pyramid = Pyramid("mobilenetv2_050", (8, 16, 32), partial(LastLevelP6P7, CHANNELS, CHANNELS))
    return FCOS(pyramid, num_classes, head=FCOSHead(CHANNELS, 1, num_classes, num_convs=1))
