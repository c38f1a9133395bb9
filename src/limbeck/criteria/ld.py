"""Localisation distillation: where a box's sides may lie, as distributions over bins. https://arxiv.org/abs/2102.12252"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from limbeck.criteria.shared.boxes import cells_of, check_boxes
from limbeck.criteria.shared.logits import divergence
from limbeck.criteria.shared.maps import as_maps

SIDES = 4


class LD(nn.Module):
    """KL divergence of the distributions over the bins of a side's distance, softened, times temperature squared.

    ``temperature**2 * KL(softmax(teacher / temperature) || softmax(student / temperature)) / (n + 1)``, averaged over
    the four sides and the positions (Zheng et al., arXiv 2102.12252, and the authors' code, which has the mean over the
    bins, too). It is for heads that predict such distributions, as GFL's does; no head of torchvision has them. The
    authors take the positions that their assigner calls objects, weighed by the student's class scores, and beside
    them a region around these; this knows positions alone.

    Args:
        temperature: Of both softmaxes.
        inside: Only positions inside the boxes of the ground truth count, which is then needed.

    Shapes:
        student, teacher: logits (B, 4 * (n + 1), H, W), side by side, or (B, N, 4 * (n + 1)); truth, where ``inside``
        is set: for each image boxes (n, 4), as left, top, right, bottom in fractions of the image. Gives a scalar.

    Raises:
        ValueError: They are no distributions of four sides over the same bins, or the truth is not boxes.

    >>> LD()(torch.zeros(1, 4 * 17, 2, 2), torch.zeros(1, 4 * 17, 2, 2))
    tensor(0.)
    """

    any_shape = True  # says itself what is wrong with other shapes

    def __init__(self, temperature: float = 10.0, *, inside: bool = False):
        super().__init__()
        self.temperature = temperature
        self.needs_truth = "the boxes of each image" if inside else False

    def forward(self, student: Tensor, teacher: Tensor, truth: Any = None) -> Tensor:
        student, teacher = as_maps(self, student, teacher, channels=False)
        count = student.shape[1]
        if count != teacher.shape[1] or count % SIDES or count < 2 * SIDES:
            raise ValueError(
                f"LD compares distributions of {SIDES} sides over the same bins, {SIDES} * (n + 1) channels, not "
                f"{count} of the student and {teacher.shape[1]} of the teacher"
            )
        student, teacher = (torch.stack(each.chunk(SIDES, 1), 1).movedim(2, -1) for each in (student, teacher))
        distances = divergence(student, teacher, self.temperature).mean(1) / (count // SIDES)
        if not self.needs_truth:
            return distances.mean()
        check_boxes(self, truth, len(student))
        inside = torch.stack([cells_of(boxes.to(distances), *distances.shape[1:]) > 0 for boxes in truth])
        return (distances * inside).sum() / inside.sum().clamp(min=1)
