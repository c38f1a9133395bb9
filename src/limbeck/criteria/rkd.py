"""Relational knowledge distillation: how far images are from each other. https://arxiv.org/abs/1904.05068"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.criteria.shared.logits import check_batch


class RKD(nn.Module):
    """Smooth L1 distances between the two models' distances of pairs, and angles of triples, of a batch's images.

    Maps and tokens are averaged over their positions first. Distances are divided by their mean; both terms are means
    over all pairs and triples (Park et al., arXiv 1904.05068; weights as usual in classification). Nothing has to agree
    in shape but the batch.

    Args:
        distance: Weight of the distances.
        angle: Weight of the angles.

    Shapes:
        student, teacher: vectors (B, D), maps (B, C, H, W) or tokens (B, N, C), of 3 images or more; gives a scalar.

    Raises:
        ValueError: The batch has fewer images.
    """

    any_shape = True

    def __init__(self, distance: float = 25.0, angle: float = 50.0):
        super().__init__()
        self.distance, self.angle = distance, angle

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        check_batch(self, len(student), least=3)
        student, teacher = _vectors(student), _vectors(teacher.detach())
        differences = [vectors[None] - vectors[:, None] for vectors in (student, teacher)]  # (B, B, D) each
        distances, angles = (F.smooth_l1_loss(of(differences[0]), of(differences[1])) for of in (_distances, _angles))
        return self.distance * distances + self.angle * angles


def _vectors(feature: Tensor) -> Tensor:
    """(B, D), or the mean over the positions of a map (B, C, H, W) or of tokens (B, N, C)."""
    positions = {4: (2, 3), 3: (1,)}.get(feature.ndim)
    return feature if positions is None else feature.mean(positions)


def _distances(pairs: Tensor) -> Tensor:
    """(B, B), in units of their mean."""
    squares = pairs.square().sum(-1)
    different = ~torch.eye(len(pairs), dtype=torch.bool, device=pairs.device)
    distances = squares.clamp(min=1e-12).sqrt() * different
    return distances / (distances.sum() / different.sum())


def _angles(pairs: Tensor) -> Tensor:
    """(B, B, B): cosines of the angles at the first image of each triple."""
    directions = F.normalize(pairs, dim=-1)
    return torch.bmm(directions, directions.transpose(1, 2))
