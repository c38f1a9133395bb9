"""Small classifiers, named on the command line as tests/nets.py:FUNCTION."""

from torch import nn


def block(inputs, outputs):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


def net(width, num_classes):
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.1), nn.Linear(2 * width, num_classes))
    return nn.Sequential(block(3, width), nn.MaxPool2d(2), block(width, 2 * width), head)


def two_heads(num_classes):
    """A DeiT for images of 8 pixels, with a distillation token."""
    from timm.models.deit import VisionTransformerDistilled

    sizes = {"img_size": 8, "patch_size": 4, "embed_dim": 8, "depth": 2, "num_heads": 2}
    return VisionTransformerDistilled(num_classes=num_classes, **sizes)


def small(num_classes):
    return net(4, num_classes)


def big(num_classes):
    return net(16, num_classes)
