"""DIST: the teacher's relations between classes and between images, not its values. https://arxiv.org/abs/2205.10536"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.criteria.shared.logits import check_batch, rows


class DIST(nn.Module):
    """One minus the correlation of class probabilities, over the classes of an image and over the images of a class.

    ``temperature**2 * (classes * (1 - mean_i pearson(p_s[i, :], p_t[i, :])) + images * (1 - mean_k pearson(p_s[:, k],
    p_t[:, k])))`` (Huang et al., arXiv 2205.10536, who weigh the whole with 2).

    Args:
        classes: Weight of the relation between classes, the paper's beta.
        images: Weight of the relation between images, the paper's gamma.
        temperature: The paper's tau; 1 on ImageNet, 4 on CIFAR.

    Shapes:
        student, teacher: logits (B, K) or (B, K, H, W), in all two rows or more; gives a scalar.

    Raises:
        ValueError: The numbers of classes differ, or there is one image only.
    """

    any_shape = True

    def __init__(self, classes: float = 1.0, images: float = 1.0, temperature: float = 1.0):
        super().__init__()
        self.classes, self.images, self.temperature = classes, images, temperature

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        student, teacher = rows(self, student, teacher)
        check_batch(self, len(student), least=2)
        p_student, p_teacher = (F.softmax(logits / self.temperature, dim=1) for logits in (student, teacher))
        over_classes, over_images = (decorrelation(p_student, p_teacher, dim) for dim in (1, 0))
        return self.temperature**2 * (self.classes * over_classes + self.images * over_images)


def decorrelation(student: Tensor, teacher: Tensor, dim: int) -> Tensor:
    """One minus Pearson's correlation along a dimension, averaged over the other."""
    student, teacher = (values - values.mean(dim, keepdim=True) for values in (student, teacher))
    lengths = student.norm(dim=dim) * teacher.norm(dim=dim) + 1e-8  # as in the authors' code
    correlation: Tensor = (student * teacher).sum(dim) / lengths
    return 1 - correlation.mean()
