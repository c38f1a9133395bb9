"""OFA-KD: features of any architecture, turned into class scores by exits. https://arxiv.org/abs/2310.19444"""

from __future__ import annotations

from math import isqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.criteria.shared.logits import labels_of, rows

SIDE = 14  # patches along a side from which on neighbours are merged
HEADS = 4


class OFAKD(nn.Module):
    """Cross entropy between class scores of an exit and the teacher's, with more weight for the true class.

    ``mean(-sum_k(((p_t[k] + y[k])**exponent - y[k]) log p_s[k]))``, where y is 1 at the true class, and 0 elsewhere and
    for an image without a label; it is the plain cross entropy at an exponent of 1. A student's feature goes through an
    exit first, which is trained with it and dropped afterwards; its own scores are compared as they are. Architectures
    need have nothing in common (Hao et al., arXiv 2310.19444, and the authors' code, in which all weights are 1).

    The exit of a map halves it ``4 - stage`` times by separable convolutions, each with twice the channels (the last
    of the authors' has as many as the wider of both networks), or has a 1x1 convolution at stage 4; then the mean over
    the positions. The exit of tokens merges 2x2 patches while they are 14 or more a side, then has ``4 - stage``, but
    at least one, blocks of attention with 4 heads, and takes the class token, or the mean where there is none.

    Args:
        exponent: The paper's gamma: 1.5 on ImageNet, 1 on CIFAR-100.
        temperature: Of both softmaxes; 1 with the authors.
        stage: Of 4, that the feature comes from.
        grid: Patches along height and width of tokens; ``None`` takes a square.

    Shapes:
        student: a map (B, C, H, W), tokens (B, N, D) with D a multiple of 4, or logits (B, K); teacher: logits (B, K);
        truth: classes (B), negative where there is none. Gives a scalar.

    Raises:
        ValueError: The teacher gives no class scores of images, the student's feature is another, or the truth is no
            class for each image.
    """

    any_shape = True
    needs_truth = "the class of each image"
    project: nn.Module  # the exit

    def __init__(
        self,
        exponent: float = 1.0,
        temperature: float = 1.0,
        *,
        stage: int = 4,
        grid: tuple[int, int] | None = None,
    ):
        super().__init__()
        if stage not in (1, 2, 3, 4):
            raise ValueError(f"stage is {stage}; it is 1, 2, 3 or 4")
        self.exponent, self.temperature = exponent, temperature
        self.stage, self.grid = stage, grid
        self.project = nn.Identity()

    def build(self, student: Tensor, teacher: Tensor) -> None:
        """Make the exit for features like these."""
        if student.shape == teacher.shape:
            return
        if teacher.ndim != 2 or student.ndim not in (3, 4):
            raise ValueError(
                f"OFAKD compares a map, tokens or logits of the student with class scores of images (B, K); student "
                f"has {tuple(student.shape)}, teacher {tuple(teacher.shape)}; ChannelTransform compares two features"
            )
        classes = teacher.shape[1]
        if student.ndim == 4:
            self.project = exit_of_map(student.shape[1], classes, halvings=4 - self.stage)
        else:
            grid = self.grid or (isqrt(student.shape[1]),) * 2
            self.project = ExitOfTokens(student.shape, grid, classes, blocks=max(1, 4 - self.stage))

    def forward(self, student: Tensor, teacher: Tensor, truth: Any) -> Tensor:
        student, teacher = rows(self, self.project(student), teacher)
        labels, known = labels_of(self, truth, student)
        true = F.one_hot(labels, student.shape[1]) * known[:, None]
        enhanced = (F.softmax(teacher / self.temperature, 1) + true) ** self.exponent - true
        return -(enhanced * F.log_softmax(student / self.temperature, 1)).sum(1).mean()


def exit_of_map(channels: int, classes: int, halvings: int) -> nn.Sequential:
    """From a map (B, C, H, W) to class scores (B, K)."""
    steps: list[nn.Module] = [halve(channels * 2**n, channels * 2 ** (n + 1)) for n in range(halvings)]
    width = channels * 2**halvings
    steps = steps or [nn.Conv2d(channels, channels, 1)]
    made = nn.Sequential(*steps, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))
    start(made)
    return made


def halve(channels: int, outputs: int) -> nn.Sequential:
    """Two separable convolutions 3x3, the first one with stride 2, each with batch norm and ReLU."""

    def separable(outputs: int, stride: int) -> list[nn.Module]:
        depthwise = nn.Conv2d(channels, channels, 3, stride, padding=1, groups=channels, bias=False)
        return [depthwise, nn.Conv2d(channels, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

    return nn.Sequential(*separable(channels, stride=2), *separable(outputs, stride=1))


class ExitOfTokens(nn.Module):
    """From tokens (B, N, D), of which the last are the patches of a grid, to class scores (B, K)."""

    def __init__(self, shape: torch.Size, grid: tuple[int, int], classes: int, blocks: int):
        super().__init__()
        _, count, width = shape
        self.others = count - grid[0] * grid[1]  # class, register and distillation tokens
        if self.others < 0 or width % HEADS:
            raise ValueError(
                f"OFAKD: tokens {tuple(shape)} do not fill a grid of {grid[0]}x{grid[1]} patches, or their width is no "
                f"multiple of {HEADS}"
            )
        merges = []
        while min(grid) >= SIDE and not (grid[0] % 2 or grid[1] % 2):
            merges.append(MergePatches(grid, width))
            grid = grid[0] // 2, grid[1] // 2
        self.merge = nn.Sequential(*merges)
        self.blocks = nn.Sequential(*(attention(width) for _ in range(blocks)))
        self.head = nn.Linear(width, classes)
        start(self)

    def forward(self, tokens: Tensor) -> Tensor:
        mixed = self.blocks(torch.cat([tokens[:, : self.others], self.merge(tokens[:, self.others :])], 1))
        scores: Tensor = self.head(mixed[:, 0] if self.others else mixed.mean(1))
        return scores


class MergePatches(nn.Module):
    """2x2 patches to one, of the same width, from (B, H * W, D) to (B, H * W / 4, D)."""

    def __init__(self, grid: tuple[int, int], width: int):
        super().__init__()
        self.grid = grid
        self.norm = nn.LayerNorm(4 * width)
        self.reduce = nn.Linear(4 * width, width, bias=False)

    def forward(self, patches: Tensor) -> Tensor:
        placed = patches.view(len(patches), *self.grid, -1)
        four = [placed[:, down::2, right::2] for right in (0, 1) for down in (0, 1)]
        return F.gelu(self.reduce(self.norm(torch.cat(four, -1).flatten(1, 2))))


def attention(width: int) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(
        width, HEADS, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )


def start(branch: nn.Module) -> None:
    """Begin as the authors do."""
    for module in branch.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
