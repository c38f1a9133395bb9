"""Tiny nets and helpers that several tests share. Every net is a function of its arguments alone: it seeds itself."""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from limbeck import Capture, Layer


def images(batch: int = 2, size: int = 16, seed: int = 0) -> Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))


def convnet(width: int, *, norm: bool = True, stride: int = 2, seed: int = 0) -> nn.Sequential:
    """Images (B, 3, 16, 16) to 5 logits; "stem" gives (B, width, 8, 8), "body" (B, 2 * width, 8 / stride, ...)."""
    torch.manual_seed(seed)
    modules = OrderedDict(
        stem=nn.Conv2d(3, width, 3, 2, 1),
        norm=nn.BatchNorm2d(width) if norm else nn.Identity(),
        act=nn.ReLU(),
        body=nn.Conv2d(width, 2 * width, 3, stride, 1),
        body_act=nn.ReLU(),
        pool=nn.AdaptiveAvgPool2d(2),
        flatten=nn.Flatten(),
        head=nn.Linear(8 * width, 5),
    )
    return nn.Sequential(modules)


class TokenNet(nn.Module):
    """Images (B, 3, 16, 16) to 5 logits; "block" gives tokens (B, 1 + 16, width), the first of them a class token."""

    def __init__(self, width: int, seed: int = 0):
        super().__init__()
        torch.manual_seed(seed)
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.block = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), patches], 1)
        return self.head(self.block(tokens).mean(1))


class Block(nn.Module):
    """Two convolutions "a" and "b", called by ``steps``; what tests of unusual forwards build on."""

    def __init__(self, steps, channels: int = 3):
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Conv2d(3, channels, 3, padding=1)
        self.b = nn.Conv2d(channels, channels, 3, padding=1)
        self.steps = steps

    def forward(self, x: Tensor):
        return self.steps(self, x)


def checkpointed(block: Block, x: Tensor) -> Tensor:
    return checkpoint(lambda x: block.b(block.a(x)), x, use_reentrant=False)


def randomize_norms(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every batch norm statistics and an affine map that a wrong fold could not hide behind."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if getattr(module, "running_var", None) is not None:
            with torch.no_grad():
                module.running_mean.normal_(0, 0.3, generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
                if module.weight is not None:
                    module.weight.uniform_(0.5, 1.5, generator=generator)
                    module.bias.normal_(0, 0.3, generator=generator)
    return model.eval()


def compiled(function, backend: str = "aot_eager"):
    """Compile without a graph break, with no trace of what other tests compiled."""
    torch.compiler.reset()
    return torch.compile(function, backend=backend, fullgraph=True)


class Net(nn.Module):
    """A classifier as the documentation has it: its last map is ``layer4``, its classifier ``fc``."""

    def __init__(self, width):
        super().__init__()
        self.layer4 = nn.Sequential(nn.Conv2d(3, width, 3, 2), nn.ReLU())
        self.fc = nn.Linear(width, 5)

    def forward(self, images):
        return self.fc(self.layer4(images).mean((2, 3)))


def features_of(model, paths, x):
    capture = Capture(model.eval(), map(Layer, paths))
    with torch.no_grad():
        features = {layer.path: feature for layer, feature in capture(x)[1].items()}
    capture.remove()
    return features


def check_close(features, expected, tolerance=1e-4):
    assert [layer.path for layer in features] == list(expected)
    for layer, feature in features.items():
        error = (feature - expected[layer.path]).abs().max() / expected[layer.path].abs().max()
        assert error < tolerance, f"{layer}: {error}"
