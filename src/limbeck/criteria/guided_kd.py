"""Guided knowledge distillation: follow the teacher only where it is right. https://arxiv.org/abs/2006.01683"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from limbeck.criteria.shared.logits import divergence, labels_of, mean_where, rows


class GuidedKD(nn.Module):
    """The divergence of ``KD``, averaged over the images that the teacher classifies as they are labelled.

    It is 0 for a batch without such an image, where the authors' code divides by 0 (Zhou et al., arXiv 2006.01683).

    Args:
        temperature: The authors take 1.

    Shapes:
        student, teacher: logits (B, K) or (B, K, H, W); truth: classes (B) or (B, H, W), negative where there is none.
        Gives a scalar.

    Raises:
        ValueError: The numbers of classes differ, or the truth is no class for each image.
    """

    any_shape = True
    needs_truth = "the class of each image"

    def __init__(self, temperature: float = 1.0):
        super().__init__()
        self.temperature = temperature

    def forward(self, student: Tensor, teacher: Tensor, truth: Any) -> Tensor:
        student, teacher = rows(self, student, teacher)
        labels, known = labels_of(self, truth, student)
        right = known & (teacher.argmax(1) == labels)
        return mean_where(divergence(student, teacher, self.temperature), right)
