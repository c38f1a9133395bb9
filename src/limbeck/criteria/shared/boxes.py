"""Where the objects are, among the positions of a map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def check_boxes(criterion: object, truth: Any, images: int) -> None:
    """Raise where the truth is not boxes for each image, (n, 4), in fractions of the image."""
    boxes = truth if isinstance(truth, Sequence) else ()
    if len(boxes) != images or not all(isinstance(b, Tensor) and b.ndim == 2 and b.shape[1] == 4 for b in boxes):
        raise ValueError(
            f"{type(criterion).__name__} needs the boxes of each of the {images} images as truth: a list of tensors "
            f"(n, 4), in fractions of the image, not a {type(truth).__name__}; without boxes, MGD or PKD compare the "
            "same layers"
        )


def cells_of(boxes: Tensor, height: int, width: int) -> Tensor:
    """One over the number of cells of the smallest box that a cell (H, W) is in; 0 where it is in none."""
    if not len(boxes):
        return boxes.new_zeros(height, width)
    left, top, right, bottom = scaled(boxes, width, height).unbind(-1)
    left, top, right, bottom = left.floor(), top.floor(), right.ceil(), bottom.ceil()
    area = (bottom + 1 - top) * (right + 1 - left)
    row = torch.arange(height, device=boxes.device)
    column = torch.arange(width, device=boxes.device)
    rows = (row >= top[:, None]) & (row <= bottom[:, None])  # (n, H), both ends included
    columns = (column >= left[:, None]) & (column <= right[:, None])
    cells: Tensor = (rows[:, :, None] & columns[:, None, :]) / area[:, None, None]
    return cells.amax(0)


def scaled(boxes: Tensor, across: float, down: float) -> Tensor:
    """Boxes (..., 4) stretched; by numbers of the host, since a GPU would be waited for to send it a tensor of them."""
    left, top, right, bottom = boxes.unbind(-1)
    return torch.stack([left * across, top * down, right * across, bottom * down], -1)


def generalised_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Of boxes (..., 4) as left, top, right, bottom with others, one by one (arXiv 1902.09630): -1 to 1."""
    overlap = _area(torch.maximum(boxes[..., :2], others[..., :2]), torch.minimum(boxes[..., 2:], others[..., 2:]))
    union = _area(boxes[..., :2], boxes[..., 2:]) + _area(others[..., :2], others[..., 2:]) - overlap
    around = _area(torch.minimum(boxes[..., :2], others[..., :2]), torch.maximum(boxes[..., 2:], others[..., 2:]))
    least = 1e-7  # of boxes without area
    return overlap / union.clamp(min=least) - (around - union) / around.clamp(min=least)


def _area(first: Tensor, last: Tensor) -> Tensor:
    return (last - first).clamp(min=0).prod(-1)
