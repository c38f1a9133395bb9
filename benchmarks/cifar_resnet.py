"""The small residual networks that CIFAR papers use, without a stem that shrinks the image.

Their weights are in channels_last, with which a step takes half the time on a CPU.
"""

import torch
from torch import Tensor, nn


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.skip = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        if stride == 1 and inputs == outputs:
            self.skip = nn.Sequential()
        self.last = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.body(x) + self.skip(x))


def resnet8(num_classes: int) -> nn.Module:
    """Widths 16, 32, 64 and one block a stage: 78 thousand parameters."""
    return network(width=16, blocks=1, num_classes=num_classes)


def resnet14(num_classes: int) -> nn.Module:
    """Widths 16, 32, 64 and two blocks a stage: 0.2 million parameters."""
    return network(width=16, blocks=2, num_classes=num_classes)


def resnet14x2(num_classes: int) -> nn.Module:
    """Widths 32, 64, 128 and two blocks a stage: 0.7 million parameters."""
    return network(width=32, blocks=2, num_classes=num_classes)


def resnet14x3(num_classes: int) -> nn.Module:
    """Widths 48, 96, 192 and two blocks a stage: 1.6 million parameters."""
    return network(width=48, blocks=2, num_classes=num_classes)


def network(width: int, blocks: int, num_classes: int) -> nn.Module:
    stem = nn.Sequential(nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
    net = nn.Sequential(
        stem,
        stage(width, width, blocks, stride=1),
        stage(width, 2 * width, blocks, stride=2),
        stage(2 * width, 4 * width, blocks, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, num_classes),
    )
    return net.to(memory_format=torch.channels_last)


def stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Module:
    return nn.Sequential(Block(inputs, outputs, stride), *(Block(outputs, outputs, 1) for _ in range(blocks - 1)))
