"""A classifier as it is deployed."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from limbeck.export.deployed import Deployed, Logits, Normalise
from limbeck.models.model import Model


class Classify(nn.Module):
    """Logits (B, K) of images (B, 3, S, S) in [0, 1]."""

    def __init__(self, model: Model):
        super().__init__()
        self.normalise, self.network = Normalise(model.inputs), model.module

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (self.network(self.normalise(images)),)


def deploy(model: Model) -> Deployed:
    """A classifier of images of its own size: the middle square of an image whose shorter side has that size."""
    size = model.inputs.square
    as_student = partial(Logits, inputs=model.inputs)
    return Deployed(Classify(model).eval(), ("logits",), as_student, (size, size))
