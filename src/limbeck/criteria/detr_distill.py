"""Predictions of a DETR's queries follow those of the teacher's that they fit best. https://arxiv.org/abs/2211.10156"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.criteria.shared.boxes import generalised_iou


class DETRDistill(nn.Module):
    """Cross entropy of the scores, L1 distance and overlap of the boxes, of queries that are paired one to one.

    ``(scores * sum(CE) + boxes * sum(|b_s - b_t|) + overlap * sum(1 - GIoU)) / n`` over the n pairs of a batch, and the
    pairs of each image are those that make the same sum smallest: all of the teacher's queries, as far as the student
    has as many, those without an object too. This is the distillation of logits and boxes of Chang et al. (arXiv
    2211.10156), as the authors' code has it for the last layer of the decoder; not their distillation of features, and
    not their queries of the teacher that go through the student's decoder, nor those of KD-DETR (arXiv 2211.08071).

    Args:
        assign: Finds the pairs: scipy's ``linear_sum_assignment``, or what gives rows and columns of a cost (Q_s, Q_t)
            like it.
        scores, boxes, overlap: Weights of the three parts, in the sum and in pairing.
        softmax: The scores of a query are a softmax over its classes and no object, as in DETR; otherwise sigmoids.

    Shapes:
        student, teacher: tuples of logits (B, Q, K) and boxes (B, Q, 4), as centre, width and height in fractions of
        the image; the numbers of queries may differ. Gives a scalar.

    Raises:
        ValueError: They are not scores of the same classes, and boxes.
    """

    any_shape = True

    def __init__(
        self,
        assign: Callable[[Tensor], tuple[Any, Any]],
        scores: float = 1.0,
        boxes: float = 5.0,
        overlap: float = 2.0,
        *,
        softmax: bool = False,
    ):
        super().__init__()
        self.assign = assign
        self.scores, self.boxes, self.overlap = scores, boxes, overlap
        self.softmax = softmax

    def forward(self, student: tuple[Tensor, ...], teacher: tuple[Tensor, ...]) -> Tensor:
        _check(student, teacher)
        logits, boxes = student
        scores = teacher[0].detach().softmax(-1) if self.softmax else teacher[0].detach().sigmoid()
        corners = corners_of(teacher[1].detach()).clamp(0, 1)  # in the image
        image, student_query, teacher_query = self._pairs(logits.detach(), boxes.detach(), scores, corners)
        logits, boxes = logits[image, student_query], boxes[image, student_query]
        scores, corners = scores[image, teacher_query], corners[image, teacher_query]
        if self.softmax:
            of_scores = -(scores * logits.log_softmax(-1)).sum()
        else:
            of_scores = F.binary_cross_entropy_with_logits(logits, scores, reduction="sum")
        of_boxes = (boxes - centres_of(corners)).abs().sum()
        of_overlap = (1 - generalised_iou(corners_of(boxes), corners)).sum()
        return (self.scores * of_scores + self.boxes * of_boxes + self.overlap * of_overlap) / len(image)

    @torch.no_grad()
    def _pairs(self, logits: Tensor, boxes: Tensor, scores: Tensor, corners: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Image, query of the student, query of the teacher, of all pairs (n)."""
        if self.softmax:
            cost = -self.scores * logits.log_softmax(-1) @ scores.mT
        else:
            cost = self.scores * (F.softplus(logits).sum(-1, keepdim=True) - logits @ scores.mT)
        cost = cost + self.boxes * torch.cdist(boxes, centres_of(corners), p=1)
        cost = cost - self.overlap * generalised_iou(corners_of(boxes)[:, :, None], corners[:, None])
        pairs = [self.assign(each) for each in cost.nan_to_num().cpu()]  # what is not finite, the loss tells of
        image = torch.cat([torch.full((len(rows),), index) for index, (rows, _) in enumerate(pairs)])
        student, teacher = (torch.cat([torch.as_tensor(pair[side]) for pair in pairs]) for side in (0, 1))
        return image.to(logits.device), student.to(logits.device), teacher.to(logits.device)


def corners_of(boxes: Tensor) -> Tensor:
    """Left, top, right, bottom of boxes (..., 4) as centre, width and height."""
    centre, size = boxes.split(2, dim=-1)  # type: ignore[no-untyped-call]
    return torch.cat([centre - size / 2, centre + size / 2], -1)


def centres_of(boxes: Tensor) -> Tensor:
    """Centre, width and height of boxes (..., 4) as left, top, right, bottom."""
    first, last = boxes.split(2, dim=-1)  # type: ignore[no-untyped-call]
    return torch.cat([(first + last) / 2, last - first], -1)


def _check(student: Any, teacher: Any) -> None:
    shapes = [tuple(tuple(each.shape) for each in pair) for pair in (student, teacher) if isinstance(pair, tuple)]
    fitting = len(shapes) == 2 and all(
        len(shape) == 2 and [len(each) for each in shape] == [3, 3] and shape[1] == (*shape[0][:2], 4)
        for shape in shapes
    )
    if not fitting or shapes[0][0][2] != shapes[1][0][2]:
        raise ValueError(
            f"DETRDistill compares logits (B, Q, K) of the same classes and boxes (B, Q, 4), Match((logits, boxes), "
            f"(logits, boxes), DETRDistill(...)), not {shapes}"
        )
