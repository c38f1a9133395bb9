"""Channel distillation: how strong each channel is. https://arxiv.org/abs/2006.01683"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.criteria.shared.maps import as_maps


class ChannelDistillation(nn.Module):
    """Mean squared error between the channels' means over the positions.

    ``mean_{b, c} (mean_hw(student) - mean_hw(teacher))**2`` (Zhou et al., arXiv 2006.01683), for one layer; the authors
    take the outputs of the four stages, weigh each with 6, and map the student's channels by a 1x1 convolution, batch
    norm and ReLU, also where their number is the teacher's: ``projector=conv_bn_relu``. The early decay of the teacher
    is a weight: ``EarlyDecay(6.0)``.

    Shapes:
        student, teacher: maps (B, C, H, W) or tokens (B, N, C); gives a scalar.
    """

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        student, teacher = as_maps(self, student, teacher)
        return F.mse_loss(student.mean((2, 3)), teacher.mean((2, 3)))
