"""Small FCOS detectors whose heads predict each side of a box as a distribution over bins, as GFL's does.

https://arxiv.org/abs/2006.04388, without its joint score of class and quality: FCOS's centreness stays.
"""

from __future__ import annotations

from typing import Any

import torch
from robustness_nets import fcos
from torch import Tensor, nn
from torchvision.models.detection.fcos import FCOSHead, FCOSRegressionHead

from limbeck.tasks.detection.pyramids import CHANNELS

BINS = 17  # distances of 0 to 16 strides
WEIGHT = 0.25  # of the loss of the distributions, as published
SIDES = "head.regression_head.sides"  # where LD reads both networks


def gfl_resnet(num_classes: int) -> nn.Module:
    return fcos("resnet10t", num_classes, Head)


def gfl_mobilenet(num_classes: int) -> nn.Module:
    return fcos("mobilenetv3_small_050", num_classes, Head)


class Sides(FCOSRegressionHead):
    """Logits (B, N, 4 * BINS) of the sides at all positions of all levels, and centreness (B, N, 1)."""

    def __init__(self) -> None:
        super().__init__(CHANNELS, num_anchors=1, num_convs=1)
        self.bbox_reg = nn.Conv2d(CHANNELS, 4 * BINS, 3, padding=1)
        nn.init.normal_(self.bbox_reg.weight, std=0.01)
        nn.init.zeros_(self.bbox_reg.bias)
        self.sides = nn.Identity()  # runs once for all levels, so that it can be read

    def forward(self, x: list[Tensor]) -> tuple[Tensor, Tensor]:
        towers = [self.conv(level) for level in x]
        sides, centreness = (
            torch.cat([convolve(tower).flatten(2).mT for tower in towers], 1)
            for convolve in (self.bbox_reg, self.bbox_ctrness)
        )
        return self.sides(sides), centreness


class Head(FCOSHead):
    """FCOS's head with the expected distances of the sides, and a loss of their distributions."""

    def __init__(self, num_classes: int):
        super().__init__(CHANNELS, 1, num_classes, num_convs=1)
        self.regression_head = Sides()

    def forward(self, x: list[Tensor]) -> dict[str, Tensor]:
        outputs = super().forward(x)
        outputs["sides"] = sides = outputs["bbox_regression"].unflatten(-1, (4, BINS))
        outputs["bbox_regression"] = sides.softmax(-1) @ torch.arange(BINS, dtype=sides.dtype, device=sides.device)
        return outputs

    def compute_loss(
        self,
        targets: list[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
        matched_idxs: list[Tensor],
    ) -> dict[str, Tensor]:
        losses: dict[str, Any] = super().compute_loss(targets, head_outputs, anchors, matched_idxs)
        of_objects = []
        for target, sides, boxes, matched in zip(targets, head_outputs["sides"], anchors, matched_idxs, strict=True):
            found = matched >= 0
            distances = self.box_coder.encode(boxes[found], target["boxes"][matched[found]])
            of_objects.append(between_bins(sides[found], distances))
        losses["sides"] = WEIGHT * torch.cat(of_objects).sum() / max(1, sum(map(len, of_objects)))
        return losses


def between_bins(logits: Tensor, distances: Tensor) -> Tensor:
    """GFL's distribution focal loss (n) of logits (n, 4, BINS): the two bins beside a distance (n, 4) share it."""
    distances = distances.clamp(0, BINS - 1.01)
    below = distances.long()
    above = distances - below
    log_probabilities = logits.log_softmax(-1)
    first, second = (log_probabilities.gather(-1, bins[..., None])[..., 0] for bins in (below, below + 1))
    return -((1 - above) * first + above * second).mean(-1)
