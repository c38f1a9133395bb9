"""Cross-head distillation: the student's head features go on through the teacher's head. https://arxiv.org/abs/2306.11369"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.core.projectors import conv1x1_if_needed, fit_grid
from limbeck.criteria.shared.boxes import generalised_iou
from limbeck.criteria.shared.frozen import Frozen
from limbeck.criteria.shared.maps import only_maps


class CrossKD(nn.Module):
    """Compare what the teacher's head makes of the student's features with what it makes of the teacher's own.

    Takes tuples of maps, of each level of a pyramid what the tower of the classes and what that of the boxes give
    before an activation. The student's are brought to the mean and deviation that each channel has in the teacher's
    batch, and go through the frozen rest of the teacher's head; gradients pass through it. The value is ``(scores *
    sum(|p_s - p_t|**beta * BCE(p_s, p_t)) + boxes * sum(c * (1 - GIoU)))`` over ``sum(c)``, where p are sigmoids of
    the logits, c is the teacher's largest p at an anchor, and the sums go over all anchors of all levels (Wang et al.,
    arXiv 2306.11369, and the authors' code). The authors divide by the number of anchors that their assigner calls
    objects, and leave out those that it ignores; this does not know assigner or ground truth, so the teacher's
    confidence counts the objects, as in the authors' code for the boxes of GFL. Where widths differ, a 1x1 convolution
    for each of the towers is trained with the student and dropped afterwards.

    Args:
        rest: The rest of the teacher's head: of the two maps of a level, the logits (B, n, K) and boxes (B, n, 4), as
            left, top, right, bottom in any unit that is the same along an axis of an anchor, such as the anchor's size.
            Taken as it is, and frozen.
        scores, boxes: Weights of the two parts, which the authors have at 1 and 1 for RetinaNet.
        beta: Exponent of the quality focal loss.

    Shapes:
        student, teacher: tuples (classes, boxes, classes, boxes, ...) of maps (B, C, H, W); gives a scalar.

    Raises:
        ValueError: The numbers of maps differ, or are odd.
    """

    any_shape = True
    projectors: nn.ModuleList

    def __init__(self, rest: nn.Module, scores: float = 1.0, boxes: float = 1.0, beta: float = 1.0):
        super().__init__()
        self.rest = Frozen(rest)
        self.scores, self.boxes, self.beta = scores, boxes, beta

    def build(self, student: tuple[Tensor, ...], teacher: tuple[Tensor, ...]) -> None:
        """Make the 1x1 convolutions of the two towers."""
        counts = [1 if isinstance(features, Tensor) else len(features) for features in (student, teacher)]
        if counts[0] != counts[1] or counts[0] % 2:
            raise ValueError(
                f"CrossKD takes two maps of each level, of classes and of boxes, of the student as of the teacher, not "
                f"{counts[0]} and {counts[1]}: Match((classes, boxes, ...), (classes, boxes, ...), CrossKD(rest))"
            )
        only_maps(self, *student, *teacher)
        self.projectors = nn.ModuleList(conv1x1_if_needed(*pair) for pair in zip(student[:2], teacher[:2], strict=True))

    def forward(self, student: tuple[Tensor, ...], teacher: tuple[Tensor, ...]) -> Tensor:
        distance, confidence = student[0].new_zeros(()), student[0].new_zeros(())
        for level in range(0, len(student), 2):
            teacher_maps = [feature.detach() for feature in teacher[level : level + 2]]
            crossed = [
                aligned(fit_grid(project(student_map), teacher_map), teacher_map)
                for project, student_map, teacher_map in zip(
                    self.projectors, student[level : level + 2], teacher_maps, strict=True
                )
            ]
            logits, boxes = self.rest(*crossed)
            with torch.no_grad():
                teacher_logits, teacher_boxes = self.rest(*teacher_maps)
                probabilities = teacher_logits.sigmoid()
                certainty = probabilities.amax(-1)
            focal = (logits.sigmoid() - probabilities).abs() ** self.beta
            of_scores = (focal * F.binary_cross_entropy_with_logits(logits, probabilities, reduction="none")).sum()
            of_boxes = (certainty * (1 - generalised_iou(boxes, teacher_boxes))).sum()
            distance = distance + self.scores * of_scores + self.boxes * of_boxes
            confidence = confidence + certainty.sum()
        return distance / confidence


def aligned(student: Tensor, teacher: Tensor) -> Tensor:
    """The student's map with the mean and deviation that each channel has in the teacher's batch."""
    mean, deviation = _moments(student)
    teacher_mean, teacher_deviation = _moments(teacher)
    return (student - mean) / (deviation + 1e-6) * teacher_deviation + teacher_mean


def _moments(feature: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel; the root is kept from 0, where it has no gradient."""
    positions = feature.numel() // feature.shape[1]
    variance, mean = torch.var_mean(feature, (0, 2, 3), correction=min(1, positions - 1), keepdim=True)
    return mean, variance.clamp(min=1e-12).sqrt()
