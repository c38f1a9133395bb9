"""Normalised knowledge distillation: the other classes as a distribution of their own. https://arxiv.org/abs/2303.13005"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.criteria.shared.logits import at, labels_of, mean_where, rows, without


class NKD(nn.Module):
    """Cross entropy on the true class, as sure as the teacher is, and on the other classes among themselves.

    ``-p_t[y] log p_s[y] - others * temperature**2 * sum_{k != y} q_t[k] log q_s[k]``, averaged over the labelled
    images, where p is the plain softmax and q the softmax at the temperature over the other classes (Yang et al., arXiv
    2303.13005). Being cross entropies, it is not 0 where student and teacher are equal.

    Args:
        others: The paper's gamma; 1.5 for CNNs on ImageNet, 1 for ViTs, 3.5 on CIFAR-100.
        temperature: The paper's lambda; 1 on ImageNet, 3 on CIFAR-100.

    Shapes:
        student, teacher: logits (B, K) or (B, K, H, W); truth: classes (B) or (B, H, W), negative where there is none.
        Gives a scalar.

    Raises:
        ValueError: The numbers of classes differ, or the truth is no class for each image.
    """

    any_shape = True
    needs_truth = "the class of each image"

    def __init__(self, others: float = 1.5, temperature: float = 1.0):
        super().__init__()
        self.others, self.temperature = others, temperature

    def forward(self, student: Tensor, teacher: Tensor, truth: Any) -> Tensor:
        student, teacher = rows(self, student, teacher)
        labels, known = labels_of(self, truth, student)
        target = -at(F.softmax(teacher, 1), labels) * at(F.log_softmax(student, 1), labels)
        q_teacher = F.softmax(without(teacher / self.temperature, labels), 1)
        log_q_student = F.log_softmax(without(student / self.temperature, labels), 1)
        others = -(q_teacher * log_q_student).sum(1)
        return mean_where(target + self.others * self.temperature**2 * others, known)
