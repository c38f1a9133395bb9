"""Small networks of the families that timm has for large images only, and small detectors."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import timm
from torch import nn
from torchvision.models.detection.fcos import FCOS, FCOSHead
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from limbeck.tasks.detection.pyramids import CHANNELS, Pyramid


def vit(num_classes: int) -> nn.Module:
    """A transformer of 4 blocks and width 96 for 32 pixels in patches of 4: 64 tokens, 0.5 million parameters."""
    return transformer(num_classes, patch_size=4, embed_dim=96, depth=4, num_heads=3)


def vit_tiny(num_classes: int) -> nn.Module:
    """A transformer of 3 blocks and width 64 for 32 pixels in patches of 8: 16 tokens, 0.2 million parameters."""
    return transformer(num_classes, patch_size=8, embed_dim=64, depth=3, num_heads=2)


def deit(num_classes: int) -> nn.Module:
    """As deep and with as many tokens as ``vit``, half as wide, with DeiT's token: 0.1 million parameters."""
    shape = {"patch_size": 4, "embed_dim": 48, "depth": 4, "num_heads": 3}
    model: nn.Module = timm.create_model(
        "deit_tiny_distilled_patch16_224", img_size=32, num_classes=num_classes, **shape
    )
    return model


def transformer(num_classes: int, **shape: int) -> nn.Module:
    model: nn.Module = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=num_classes, **shape)
    return model


def convnext(num_classes: int) -> nn.Module:
    """A ConvNeXt of widths 32 to 256 for 32 pixels in patches of 2."""
    dims, depths = (32, 64, 128, 256), (1, 2, 2, 1)
    model: nn.Module = timm.create_model(
        "convnext_atto", num_classes=num_classes, patch_size=2, dims=dims, depths=depths
    )
    return model


def fcos_resnet(num_classes: int) -> nn.Module:
    return fcos("resnet10t", num_classes)


def fcos_mobilenet(num_classes: int) -> nn.Module:
    return fcos("mobilenetv3_small_050", num_classes)


def light_head(num_classes: int) -> FCOSHead:
    """FCOS's head with one convolution instead of four in each tower."""
    return FCOSHead(CHANNELS, 1, num_classes, num_convs=1)


def fcos(backbone: str, num_classes: int, make_head: Callable[[int], FCOSHead] = light_head) -> nn.Module:
    pyramid = Pyramid(backbone, (8, 16, 32), partial(LastLevelP6P7, CHANNELS, CHANNELS))
    return FCOS(pyramid, num_classes, head=make_head(num_classes))
