"""Transformed teacher matching: only the teacher is softened, and its doubts weigh. https://arxiv.org/abs/2402.11148"""

from __future__ import annotations

from torch import Tensor, nn

from limbeck.criteria.shared.logits import divergence, rows


class WTTM(nn.Module):
    """KL divergence from the student's class probabilities to a power of the teacher's, weighed by the power sum.

    ``mean(U * KL(p_t**exponent / U || p_s))`` with ``U = sum(p_t**exponent)``, p being plain softmaxes: the student's
    is not softened, and images count more where the teacher is less sure (Zheng and Yang, arXiv 2402.11148). It is 0
    where the student gives ``exponent`` times the teacher's logits.

    Args:
        exponent: The paper's gamma, one over a temperature of the teacher: 0.1 to 0.2 in its examples on CIFAR-100.
        weighed: Whether U counts; without it this is the paper's TTM.

    Shapes:
        student, teacher: logits (B, K), or (B, K, H, W) where every position counts as an image; gives a scalar.

    Raises:
        ValueError: The numbers of classes differ.
    """

    any_shape = True  # says itself what is wrong with other shapes

    def __init__(self, exponent: float = 0.2, *, weighed: bool = True):
        super().__init__()
        self.exponent, self.weighed = exponent, weighed

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        student, teacher = rows(self, student, teacher)
        powers = self.exponent * teacher.log_softmax(1)
        distances = divergence(student, powers, 1)
        return (powers.exp().sum(1) * distances).mean() if self.weighed else distances.mean()
