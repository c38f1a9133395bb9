"""Knowledge distillation: the teacher's softened class probabilities as targets. https://arxiv.org/abs/1503.02531"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class KD(nn.Module):
    """KL divergence from the student's to the teacher's class probabilities, both softened, times temperature squared.

    ``temperature**2 * KL(softmax(teacher / temperature) || softmax(student / temperature))``, averaged over the batch
    (Hinton et al., arXiv 1503.02531). The square keeps the gradient's size as the temperature changes.

    Args:
        temperature: The paper's T; 4 is usual on CIFAR, 1 on ImageNet.

    Shapes:
        student (B, K), teacher (B, K) logits; gives a scalar.

    Raises:
        ValueError: The numbers of classes differ.

    >>> import torch
    >>> KD()(torch.zeros(2, 3), torch.zeros(2, 3))
    tensor(0.)
    """

    def __init__(self, temperature: float = 4.0):
        super().__init__()
        self.temperature = temperature

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        if student.shape != teacher.shape or student.ndim != 2:
            raise ValueError(
                f"KD compares logits (B, K) of the same classes; student has {tuple(student.shape)}, "
                f"teacher {tuple(teacher.shape)}"
            )
        log_p_student = F.log_softmax(student / self.temperature, dim=1)
        log_p_teacher = F.log_softmax(teacher.detach() / self.temperature, dim=1)
        divergence = F.kl_div(log_p_student, log_p_teacher, reduction="batchmean", log_target=True)
        return self.temperature**2 * divergence
