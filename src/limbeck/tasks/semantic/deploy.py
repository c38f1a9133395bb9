"""A segmenter as it is deployed."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from limbeck.export.deployed import Deployed, Logits, Normalise
from limbeck.export.pooling import with_any_pooling
from limbeck.models.model import Model
from limbeck.tasks.semantic.places import logits_at


class Segment(nn.Module):
    """Logits (B, K, H, W) of images (B, 3, H, W) in [0, 1]."""

    def __init__(self, model: Model):
        super().__init__()
        self.normalise, self.network = Normalise(model.inputs), with_any_pooling(model.module)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        height, width = images.shape[-2:]
        pixels = self.normalise(images)
        return (logits_at(self.network(pixels), pixels.shape[-2:])[..., :height, :width],)


def deploy(model: Model) -> Deployed:
    """A segmenter of images of any size."""
    return Deployed(Segment(model).eval(), ("logits",), partial(Logits, inputs=model.inputs))
