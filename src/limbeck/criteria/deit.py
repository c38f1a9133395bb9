"""Hard-label distillation, at a head that the student has for it: https://arxiv.org/abs/2012.12877"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.criteria.shared.logits import rows


class DeiT(nn.Module):
    """Cross entropy with the class that the teacher says, for the head of the student's distillation token.

    The labels are for the class token's head alone, and predictions are made by the mean of both (Touvron et al., arXiv
    2012.12877). timm's students with such a head return the scores of both in training once they are told to:

        student.set_distilled_training(True)
        Match("head_dist", "", DeiT())

    and the task's loss is of the first. The paper halves both losses. Its soft variant is ``KD`` at the same layer, of
    which the authors' code also divides by the number of classes. The labels bring no gradient to this layer, so there
    is none that ``weight="auto"`` could follow.

    Shapes:
        student, teacher: logits (B, K), or (B, K, H, W) where every position counts as an image; gives a scalar.

    Raises:
        ValueError: The numbers of classes differ.
    """

    any_shape = True  # says itself what is wrong with other shapes

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        student, teacher = rows(self, student, teacher)
        return F.cross_entropy(student, teacher.argmax(1))
