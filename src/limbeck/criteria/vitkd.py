"""ViTKD: mimic a transformer's shallow blocks, generate the deepest feature. https://arxiv.org/abs/2209.02432"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from limbeck.core.precision import as_weights
from limbeck.core.projectors import conv1x1_if_needed, fit_grid
from limbeck.criteria.shared.maps import as_maps, only_maps
from limbeck.criteria.shared.one_pass import sum_of_pieces

Three = tuple[Tensor, Tensor, Tensor]


class ViTKD(nn.Module):
    """Squared L2 distances: of the first two blocks, mapped linearly, and of the last feature, generated where masked.

    ``(shallow * sum_{i=1,2}(sum((W_i(student_i) - teacher_i)**2)) + deep / masked * sum(mask *
    (generator(student_3) - teacher_3)**2)) / B``. A masked position of ``W_3(student_3)`` becomes a learned token; the
    generator is two 3x3 convolutions with a ReLU between. All are trained with the student and dropped afterwards; the
    linear maps are there only where the widths differ. The mask is drawn anew in each training step; in eval mode it is
    the same always. Follows the authors' code (Yang et al., arXiv 2209.02432).

    Args:
        shallow, deep: The paper's alpha and beta, of which it has 3e-5 and 3e-6: ``Match(..., weight=3e-5)``.
        masked: Share of the positions that is masked, the paper's lambda.

    Shapes:
        student, teacher: patch tokens as maps, after the first block, the second, and the last one with its norm: each
        three of (B, D, H, W), brought to the teacher's height and width. Gives a scalar.

    Raises:
        ValueError: They are not three maps each.
    """

    any_shape = True
    aligned: nn.ModuleList
    token: nn.Parameter
    generator: nn.Sequential

    def __init__(self, shallow: float = 1.0, deep: float = 0.1, masked: float = 0.5):
        super().__init__()
        if not 0 < masked < 1:
            raise ValueError(f"masked is {masked}; it is a share between 0 and 1")
        self.shallow, self.deep, self.masked = shallow, deep, masked

    def build(self, student: Three, teacher: Three) -> None:
        """Make the linear maps, the token and the generator for features like these."""
        for features in (student, teacher):
            if isinstance(features, Tensor) or len(features) != 3:
                count = 1 if isinstance(features, Tensor) else len(features)
                raise ValueError(
                    f"ViTKD takes three layers of each model, the first two blocks and the last, not {count}: "
                    "Match((layer, layer, layer), (layer, layer, layer), ViTKD())"
                )
        only_maps(self, *student, *teacher)
        width = teacher[-1].shape[1]
        self.aligned = nn.ModuleList(conv1x1_if_needed(*pair) for pair in zip(student, teacher, strict=True))
        self.token = nn.Parameter(torch.zeros(width))
        self.generator = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, student: Three, teacher: Three) -> Tensor:
        pairs = [
            as_maps(self, fit_grid(student_feature, teacher_feature), teacher_feature, channels=False)
            for student_feature, teacher_feature in zip(student, teacher, strict=True)
        ]
        total = student[0].new_zeros(())
        for align, pair in zip(self.aligned, pairs[:2], strict=False):
            mimic = partial(mimicked, align)
            total = total + self.shallow * sum_of_pieces(mimic, *pair, weights=list(align.parameters()))
        deep_student, deep_teacher = pairs[2]
        kept = self._kept(deep_student)
        weights = [*self.aligned[2].parameters(), self.token, *self.generator.parameters()]
        generated = sum_of_pieces(self._generated, deep_student, deep_teacher, kept, weights=weights)
        return (total + self.deep / self.masked * generated) / len(deep_student)

    def _kept(self, feature: Tensor) -> Tensor:
        """Which positions are not masked, (B, 1, H, W): as many in every image."""
        batch, _, height, width = feature.shape
        count = height * width
        if self.training:
            ranks = torch.rand(batch, count, device=feature.device).argsort(1).argsort(1)
        else:  # spread evenly
            steps = torch.arange(count, device=feature.device)
            ranks = (steps * 0.618034 % 1).argsort().argsort().expand(batch, count)
        kept = ranks < int(count * (1 - self.masked))
        return kept.view(batch, 1, height, width).to(feature.dtype)

    def _generated(self, student: Tensor, teacher: Tensor, kept: Tensor) -> Tensor:
        aligned = self.aligned[2](as_weights(student, self))
        made = self.generator(torch.where(kept.bool(), aligned, self.token[:, None, None]))
        distance: Tensor = ((made - teacher) * (1 - kept)).square().sum()
        return distance


def mimicked(align: nn.Module, student: Tensor, teacher: Tensor) -> Tensor:
    """The squared distance through a linear map."""
    distance: Tensor = (align(as_weights(student, align)) - teacher).square().sum()
    return distance
