"""Feature-based distillation for detectors: attention-guided and non-local. https://openreview.net/forum?id=uKhGRvM8QNH"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.core.precision import as_weights, exact
from limbeck.criteria.shared.attention import over_positions
from limbeck.criteria.shared.maps import as_maps, only_maps
from limbeck.criteria.shared.one_pass import sum_of_pieces


class FKD(nn.Module):
    """L2 norms of four differences: features where either model attends, both attentions, and non-local relations.

    ``feature * ||sqrt(M) * (teacher - conv1x1(student))|| + attention * (||mean_hw(teacher) -
    linear(mean_hw(student))|| + ||mean_c(teacher) - conv3x3(mean_c(student))||) + relation * ||N_t(teacher) -
    conv1x1(N_s(student))||``, for one level of an FPN; norms are over the whole batch, ``M`` is the mean of the two
    attentions over positions, ``N`` are non-local blocks. All of them are trained with the student and dropped
    afterwards.

    Zhang and Ma, ICLR 2021, whose code is the supplement on OpenReview. This is equal to the implementation in mmrazor
    (``FBKDLoss`` and its connectors), which follows that code.

    Args:
        feature, attention, relation: Weights of the terms.
        temperature: Of the attention.
        reduction: Channels over those of a non-local block; 4 on the two largest levels.
        pool: Half the stride at which a non-local block looks at the positions (``maxpool_stride`` in mmrazor, where a
            pool of 2 precedes it); 8 and 4 on the two largest levels.

    Shapes:
        student (B, C_s, H, W), teacher (B, C_t, H, W); gives a scalar.
    """

    any_shape = True
    mixed_precision = True  # its terms are computed in float32

    def __init__(
        self,
        feature: float = 7e-5,
        attention: float = 4e-3,
        relation: float = 7e-5,
        temperature: float = 0.5,
        reduction: int = 2,
        pool: int = 2,
    ):
        super().__init__()
        self.feature, self.attention, self.relation = feature, attention, relation
        self.temperature, self.reduction, self.pool = temperature, reduction, pool

    def build(self, student: Tensor, teacher: Tensor) -> None:
        """Make what maps the student's feature and relations to the teacher's."""
        only_maps(self, student, teacher)
        channels, teacher_channels = student.shape[1], teacher.shape[1]
        self.map_feature = nn.Conv2d(channels, teacher_channels, 1)
        self.map_channels = nn.Linear(channels, teacher_channels)
        self.map_positions = nn.Conv2d(1, 1, 3, padding=1)
        self.map_relations = nn.Conv2d(channels, teacher_channels, 1)
        self.student_relations = NonLocal(channels, self.reduction, self.pool)
        self.teacher_relations = NonLocal(teacher_channels, self.reduction, self.pool)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        student, teacher = as_maps(self, student, teacher, channels=False)
        feature = sum_of_pieces(self._features, student, teacher, weights=list(self.map_feature.parameters()))
        student, teacher = exact(student), exact(teacher)
        channels = teacher.mean((2, 3)) - self.map_channels(as_weights(student.mean((2, 3)), self))
        positions = teacher.mean(1, keepdim=True) - self.map_positions(as_weights(student.mean(1, keepdim=True), self))
        attention = torch.linalg.vector_norm(channels) + torch.linalg.vector_norm(positions)
        relation = self._relations(as_weights(student, self), as_weights(teacher, self))
        total: Tensor = self.feature * root(feature) + self.attention * attention + self.relation * root(relation)
        return total

    def _features(self, student: Tensor, teacher: Tensor) -> Tensor:
        attention = [over_positions(feature, self.temperature) for feature in (student.detach(), teacher)]
        squares: Tensor = (
            (attention[0] + attention[1]) / 2 * (teacher - self.map_feature(as_weights(student, self))).square()
        )
        return squares.sum()

    def _relations(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Of the whole batch at once, since the batch norm of the blocks relates its images."""
        difference = self.teacher_relations(teacher) - self.map_relations(self.student_relations(student))
        return exact(difference).square().sum()


def root(total: Tensor) -> Tensor:
    """The square root, with a gradient of 0 at 0."""
    return total.clamp(min=1e-30).sqrt()


class NonLocal(nn.Module):
    """Add to every position a normalised sum of all positions, weighed by dot products (arXiv 1711.07971).

    Nothing is added at first, since the scale of the batch norm starts at 0.
    """

    def __init__(self, channels: int, reduction: int, pool: int):
        super().__init__()
        inner = max(1, channels // reduction)
        self.query, self.key, self.value = (nn.Conv2d(channels, inner, 1) for _ in range(3))
        for layer in (self.query, self.key, self.value):
            weight, bias = layer.parameters()
            nn.init.normal_(weight, std=0.01)
            nn.init.zeros_(bias)
        self.output = nn.Conv2d(inner, channels, 1, bias=False)
        nn.init.kaiming_normal_(self.output.weight, mode="fan_out", nonlinearity="relu")
        self.norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.norm.weight)
        self.stride = 2 * pool

    def forward(self, feature: Tensor) -> Tensor:
        window = min(self.stride, feature.shape[2]), min(self.stride, feature.shape[3])
        query = self.query(feature).flatten(2)
        key, value = (F.max_pool2d(layer(feature), window).flatten(2) for layer in (self.key, self.value))
        # Dot products without a softmax, so the small product of keys and values comes first.
        related = (value @ key.transpose(1, 2) / key.shape[2]) @ query  # (B, inner, H * W)
        output: Tensor = feature + self.norm(self.output(related.view(*related.shape[:2], *feature.shape[2:])))
        return output
