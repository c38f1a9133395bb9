"""Channel-wise distillation: where each channel looks. https://arxiv.org/abs/2011.13256"""

from __future__ import annotations

from torch import Tensor, nn

from limbeck.criteria.shared.logits import divergence
from limbeck.criteria.shared.maps import as_maps
from limbeck.criteria.shared.one_pass import sum_of_pieces


class CWD(nn.Module):
    """Each channel's map as a distribution over the positions, and the divergence between the two models' ones.

    ``temperature**2 / (B * C) * sum_{b, c} KL(softmax_hw(teacher / temperature) || softmax_hw(student / temperature))``
    (Shu et al., arXiv 2011.13256). The distribution ignores a constant added to a channel. For features of other
    channels the authors put a 1x1 convolution, batch norm and ReLU before it: ``projector=conv_bn_relu``,
    whose ReLU is for teachers' features without negative values.

    Args:
        temperature: The paper's T: 4 on logit maps with weight 3; 1 on features, with weight 5 to 10 in later work.

    Shapes:
        student, teacher: maps (B, C, H, W), features or logits, or tokens (B, N, C); gives a scalar.
    """

    mixed_precision = True  # its slices are computed in float32

    def __init__(self, temperature: float = 1.0):
        super().__init__()
        self.temperature = temperature

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        student, teacher = as_maps(self, student, teacher)
        count = student.shape[0] * student.shape[1]
        return sum_of_pieces(self._divergence, student, teacher) / count

    def _divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        return divergence(student.flatten(2), teacher.flatten(2), self.temperature).sum()
