"""Small networks to compress, and inputs that are correlated as those of real layers are."""

import torch
from torch import nn


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x):
        return torch.relu_(self.body(x) + x)


def residual_net(width=16, blocks=2):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
        nn.Sequential(*(Residual(width) for _ in range(blocks))),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, 10),
    )
    for norm in (module for module in net.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.momentum = None
    with torch.no_grad():
        net(images(500))  # so that the norms know what they see
    return net.eval()


class RoIHeads(nn.Module):
    """As a detector's, looks at some of the positions, here those where the first channel is positive."""

    def __init__(self, width):
        super().__init__()
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, x):
        return self.head(x.movedim(1, -1)[x[:, 0] > 0])


def images(count, size=8, seed=None):
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, size // 2, size // 2, generator=generator)
    return nn.functional.interpolate(coarse, scale_factor=2.0)


def correlated(count, width, rank, seed=0):
    """Vectors (count, width) that lie near a space of a few directions."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(rank, width, generator=generator)
    near = torch.randn(count, rank, generator=generator) @ directions
    return near + 0.05 * torch.randn(count, width, generator=generator)
