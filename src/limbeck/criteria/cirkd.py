"""Cross-image relations: which positions of a batch look alike, also of other images. https://arxiv.org/abs/2204.06986"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from limbeck.criteria.shared.logits import divergence
from limbeck.criteria.shared.maps import as_maps


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
            nn.functional.normalize(_without_zeros(feature.flatten(2)), dim=1)
            for feature in as_maps(self, student, teacher, channels=False)
        )  # (B, C, positions)
        compare = self._compare if torch.compiler.is_compiling() else self._compare_again
        of_images = [compare(image, student, teacher) for image in range(len(student))]
        return torch.stack(of_images).mean()

    def _compare_again(self, image: int, student: Tensor, teacher: Tensor) -> Tensor:
        """As ``_compare``, which is computed a second time in the backward pass instead of kept."""
        value: Tensor = checkpoint(self._compare, image, student, teacher, use_reentrant=False)
        return value

    def _compare(self, image: int, student: Tensor, teacher: Tensor) -> Tensor:
        """The mean over the positions of one image, and over the images that they are compared with."""
        of_student, of_teacher = (
            torch.einsum("cp,bcq->pbq", feature[image], feature) / self.temperature for feature in (student, teacher)
        )
        return divergence(of_student, of_teacher, 1).mean()


def _without_zeros(feature: Tensor) -> Tensor:
    """The feature (B, C, positions); what is 0 in all channels has no direction, and so no gradient."""
    return torch.where((feature != 0).any(1, keepdim=True), feature, feature.detach())
