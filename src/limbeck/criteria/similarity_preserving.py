"""Similarity-preserving distillation: which images look alike. https://arxiv.org/abs/1907.09682"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.criteria.shared.logits import check_batch


class SimilarityPreserving(nn.Module):
    """Mean squared error between the two tables of similarity of a batch's images.

    A table (B, B) holds the products of the flattened features, each row divided by its L2 norm (Tung and Mori, arXiv
    1907.09682). Nothing has to agree in shape but the batch. The usual weight is 3000.

    Shapes:
        student, teacher: (B, ...) with 2 images or more; gives a scalar.

    Raises:
        ValueError: The batch has one image.
    """

    any_shape = True

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        check_batch(self, len(student), least=2)
        return F.mse_loss(_similarity(student), _similarity(teacher.detach()))


def _similarity(feature: Tensor) -> Tensor:
    vectors = feature.flatten(1)
    products = vectors @ vectors.detach().t()
    # The same table, but its gradient comes to the feature by one product instead of by two of the feature's size.
    return F.normalize(products + products.t() - products.detach(), dim=1)
