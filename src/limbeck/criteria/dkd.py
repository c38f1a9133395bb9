"""Decoupled knowledge distillation: target and other classes apart. https://arxiv.org/abs/2203.08679"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from limbeck.criteria.shared.logits import at, divergence, labels_of, mean_where, rows, standardised, without


class DKD(nn.Module):
    """The divergence of ``KD`` in two parts: is it the true class, and if not, which other.

    ``target * KL((p_y, 1 - p_y)) + others * KL(p without y)``, each times temperature squared and averaged over the
    labelled images. Follows the authors' code; the warm-up over 20 of 240 epochs is a weight: ``WarmUp(1.0, 1 / 12)``.

    Args:
        target: The paper's alpha.
        others: The paper's beta: 8 on CIFAR-100 (6 or 2 for weak teachers); on ImageNet 0.5 for ResNet-18, 2 for
            MobileNet. Of two classes there is only one other, so this part is 0, and ``KD`` says the same.
        temperature: The paper's T; 4 on CIFAR-100, 1 on ImageNet.
        standardise: Bring each image's logits to mean 0 and deviation 1 first (arXiv 2403.01427, which takes the
            temperature 2 and multiplies both weights by 9: ``DKD(9, 72, 2, standardise=True)``).

    Shapes:
        student, teacher: logits (B, K) or (B, K, H, W); truth: classes (B) or (B, H, W), negative where there is none.
        Gives a scalar.

    Raises:
        ValueError: The numbers of classes differ, the truth is no class for each image, or two classes leave nothing to
            compare: only ``others`` has a weight, or ``standardise`` is set.
    """

    any_shape = True
    needs_truth = "the class of each image"

    def __init__(
        self, target: float = 1.0, others: float = 8.0, temperature: float = 4.0, *, standardise: bool = False
    ):
        super().__init__()
        self.target, self.others = target, others
        self.temperature, self.standardise = temperature, standardise

    def forward(self, student: Tensor, teacher: Tensor, truth: Any) -> Tensor:
        student, teacher = rows(self, student, teacher)
        if student.shape[1] == 2 and not self.target:
            raise ValueError("DKD with target=0 compares the other classes alone, and of two classes there is only one")
        labels, known = labels_of(self, truth, student)
        if self.standardise:
            student, teacher = standardised(student), standardised(teacher)
        student, teacher = student / self.temperature, teacher / self.temperature
        rest = without(student, labels), without(teacher, labels)
        # As two logits: that of the true class, and the one that stands for all others.
        true_student, true_teacher = (
            torch.stack([at(logits, labels), others.logsumexp(1)], 1)
            for logits, others in zip((student, teacher), rest, strict=True)
        )
        target = divergence(true_student, true_teacher, 1)
        others = divergence(*rest, 1)
        return self.temperature**2 * mean_where(self.target * target + self.others * others, known)
