"""Knowledge distillation: the teacher's softened class probabilities as targets. https://arxiv.org/abs/1503.02531"""

from __future__ import annotations

from torch import Tensor, nn

from limbeck.criteria.shared.logits import divergence, rows, standardised


class KD(nn.Module):
    """KL divergence from the student's to the teacher's class probabilities, both softened, times temperature squared.

    ``temperature**2 * KL(softmax(teacher / temperature) || softmax(student / temperature))``, averaged over the batch
    (Hinton et al., arXiv 1503.02531).

    Args:
        temperature: The paper's T; 4 is usual on CIFAR, 1 on ImageNet, 2 with ``standardise``.
        standardise: Bring each image's logits to mean 0 and deviation 1 first (arXiv 2403.01427, which gives the
            criterion the weight 9 beside 0.1 of the cross entropy).

    Shapes:
        student, teacher: logits (B, K), or (B, K, H, W) where every position counts as an image; gives a scalar.

    Raises:
        ValueError: The numbers of classes differ, or there are two and ``standardise`` is set.

    >>> import torch
    >>> KD()(torch.zeros(2, 3), torch.zeros(2, 3))
    tensor(0.)
    """

    any_shape = True  # says itself what is wrong with other shapes

    def __init__(self, temperature: float = 4.0, *, standardise: bool = False):
        super().__init__()
        self.temperature, self.standardise = temperature, standardise

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        student, teacher = rows(self, student, teacher)
        if self.standardise:
            student, teacher = standardised(student), standardised(teacher)
        return divergence(student, teacher, self.temperature).mean()
