"""torchvision's heads over every position of a pyramid, RetinaNet's and FCOS's, cut before their last convolution."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, RetinaNet

from limbeck.core.capture import Layer
from limbeck.models.model import DenseHead
from limbeck.tasks.detection.deploy import decoded

TOWERS = ("head.classification_head.conv", "head.regression_head.conv")


def cut_head(model: nn.Module, strides: Collection[int]) -> DenseHead | None:
    """The head of a detector, cut before the activation of the last convolution but one, of four after the third.

    The activations at which it is cut are kept from changing their inputs in place, which does not change what they
    return.

    Args:
        model: The detector.
        strides: Of the levels, in pixels, in the order in which the head looks at them.

    Returns:
        ``None`` where it is no RetinaNet and no FCOS, or has a tower without an activation.
    """
    if not isinstance(model, RetinaNet | FCOS):
        return None
    paths = []
    for tower in TOWERS:
        activations = [f"{tower}.{path}" for path, each in model.get_submodule(tower).named_modules() if _is_relu(each)]
        if not activations:
            return None
        paths.append(activations[-2:][0])
    for path in paths:
        model.get_submodule(path).inplace = False
    first, second = paths
    layers = {
        stride: (
            Layer(first, input=True, label=f"/{stride}", run=run),
            Layer(second, input=True, label=f"/{stride}", run=run),
        )
        for run, stride in enumerate(strides)
    }
    return DenseHead(layers, RestOfHead(model, first, second))


class RestOfHead(nn.Module):
    """What a head does behind the cut, as a copy: of two maps, logits (B, n, K) and boxes (B, n, 4).

    Boxes are decoded for an anchor of size 1 around the origin: how they overlap is the same wherever the anchor is,
    and whatever its size.
    """

    anchor: Tensor  # (1, 4)

    def __init__(self, model: nn.Module, first: str, second: str):
        super().__init__()
        head: Any = model.head
        ends = head.classification_head.cls_logits, head.regression_head.bbox_reg
        self.classify, self.regress = (
            nn.Sequential(*(copy.deepcopy(each) for each in [*_from(model, tower, path), end]))
            for tower, path, end in zip(TOWERS, (first, second), ends, strict=True)
        )
        if isinstance(model, FCOS):
            self.regress.append(nn.ReLU())
        self.classes: int = head.classification_head.num_classes
        self.coder: Any = model.box_coder
        self.register_buffer("anchor", torch.tensor([[-0.5, -0.5, 0.5, 0.5]]), persistent=False)

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        logits = _by_anchor(self.classify(first), self.classes)
        regression = _by_anchor(self.regress(second), 4)
        anchors = self.anchor.to(regression).expand(regression.shape[1], 4)
        return logits, decoded(self.coder, regression, anchors)


def _is_relu(module: nn.Module) -> bool:
    return isinstance(module, nn.ReLU)


def _from(model: nn.Module, tower: str, path: str) -> list[nn.Module]:
    """The modules of a tower from one on, without what only holds others."""
    parts = [(f"{tower}.{name}", each) for name, each in model.get_submodule(tower).named_modules()]
    leaves = [(name, each) for name, each in parts if not any(each.children())]
    start = [name for name, _ in leaves].index(path)
    return [each for _, each in leaves[start:]]


def _by_anchor(map: Tensor, values: int) -> Tensor:
    """(B, n, values) of a map (B, A * values, H, W)."""
    batch, _, height, width = map.shape
    return map.view(batch, -1, values, height, width).permute(0, 3, 4, 1, 2).reshape(batch, -1, values)
