"""What the queries of a transformer of the DETR family predict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from limbeck.core.capture import Layer
from limbeck.core.trace import tracing
from limbeck.models.model import Queries
from limbeck.tasks.detection.transformer_levels import run_on_noise


@dataclass(frozen=True)
class part:  # noqa: N801 - it is used as a function: Layer("model", read=part("logits"))
    """Read a part of an output of transformers, of the last layer of the decoder where the part has all."""

    name: str
    queries: int | None = None  # so many: before them are those from which noise is taken in training

    def __call__(self, output: Any) -> Tensor:
        read: Tensor = getattr(output, self.name)
        return read if self.queries is None else read[:, -1, -self.queries :]


def find_queries(model: nn.Module) -> Queries:
    """Where scores and boxes of a detector's queries are: on the way to its loss, for which some split them again."""
    network: Any = model.model
    with tracing(model) as traced:
        logits: Tensor = run_on_noise(network).logits
    softmax = logits.shape[-1] == network.config.num_labels + 1
    decoder = next((call.path for call in traced if _has_all_layers(call.output)), None)
    if decoder is None:
        return Queries((Layer("model", part("logits")), Layer("model", part("pred_boxes"))), softmax)
    names = ("intermediate_logits", "intermediate_reference_points")
    first, second = (Layer(decoder, part(name, logits.shape[1])) for name in names)
    return Queries((first, second), softmax)


def _has_all_layers(output: Any) -> bool:
    return isinstance(getattr(output, "intermediate_logits", None), Tensor)
