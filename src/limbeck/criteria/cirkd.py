"""Cross-image relations: which positions of a batch look alike, also of other images. https://arxiv.org/abs/2204.06986"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from limbeck.core.precision import exact
from limbeck.criteria.shared.logits import divergence
from limbeck.criteria.shared.maps import as_maps
from limbeck.criteria.shared.one_pass import OnePass, transformed


class CIRKD(nn.Module):
    """KL divergence of the similarities of each position to the positions of every image of the batch.

    For two images i and j, each position of i has a softmax over the positions of j, of the cosines over the
    temperature; ``mean_ij(mean_positions(KL(teacher || student)))``. This is the mini-batch pixel-to-pixel part of Yang
    et al. (arXiv 2204.06986), without its queues of former batches; the authors' code first takes means of 4x4
    positions where maps are 256 high and wide or more. Time grows as ``(B H W)**2``, so read a map of coarse positions;
    of the similarities only those of one image's positions are kept at a time.

    Args:
        temperature: Of the softmaxes; the authors' is 0.1, with weight 1.

    Shapes:
        student (B, C_s, H, W), teacher (B, C_t, H, W), or tokens (B, N, C); gives a scalar.
    """

    any_shape = True

    def __init__(self, temperature: float = 0.1):
        super().__init__()
        self.temperature = temperature

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        student, teacher = (
            nn.functional.normalize(_without_zeros(exact(feature).flatten(2)), dim=1).transpose(0, 1)
            for feature in as_maps(self, student, teacher, channels=False)
        )  # (C, B, positions)
        if torch.compiler.is_compiling() or transformed() or not torch.is_grad_enabled():
            return self._formula(student, teacher)
        value: Tensor = OnePass.apply(self._with_gradient, self._formula, student, teacher)
        return value

    def _formula(self, student: Tensor, teacher: Tensor) -> Tensor:
        of_images = (self._similarities(image, student, teacher) for image in range(student.shape[1]))
        return torch.stack([divergence(*logits, 1).mean() for logits in of_images]).mean()

    def _with_gradient(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor, None]:
        """The value, and its gradient on the student's directions: each image's, as one that asks and as one asked."""
        _, batch, positions = student.shape
        value, gradient = student.new_zeros(()), torch.zeros_like(student)
        for image in range(batch):
            of_student, of_teacher = (each.log_softmax(-1) for each in self._similarities(image, student, teacher))
            wanted = of_teacher.exp()
            value += (wanted * of_teacher.sub_(of_student)).sum()
            excess = of_student.exp_().sub_(wanted)
            gradient += torch.einsum("cp,pbq->cbq", student[:, image], excess)
            gradient[:, image] += torch.einsum("cbq,pbq->cp", student, excess)
        return value / (batch**2 * positions), gradient.div_(batch**2 * positions * self.temperature), None

    def _similarities(self, image: int, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (positions of this image, B, positions) of which position looks like which, of both."""
        of_student, of_teacher = (
            torch.einsum("cp,cbq->pbq", feature[:, image], feature).div_(self.temperature)
            for feature in (student, teacher)
        )
        return of_student, of_teacher


def _without_zeros(feature: Tensor) -> Tensor:
    """The feature (B, C, positions); what is 0 in all channels has no direction, and so no gradient."""
    return torch.where((feature != 0).any(1, keepdim=True), feature, feature.detach())
