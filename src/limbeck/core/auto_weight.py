"""``weight="auto"``: find the weight of a criterion from the gradients of the first batches."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

RATIO = 0.5  # wanted: gradient of the weighted criterion / gradient of the task loss, on the student's feature
BATCHES = 8

logger = logging.getLogger("limbeck")


class AutoWeight(nn.Module):
    """A weight such that the criterion's gradient on the student's feature is ``RATIO`` times that of the task loss.

    Over the first ``BATCHES`` training batches the criterion is measured and weighs nothing, so that the gradient that
    reaches the feature is the task's (and that of matches whose weight is a number). The weight is ``RATIO`` times the
    geometric mean of the quotients of the two norms; a factor on the whole loss, such as loss scaling, cancels. Ratio
    and number of batches are this library's choice, by measurement (docs/log.md).

    The state is in ``state_dict()``. Processes agree on one number, under DDP the first one's, whose buffers all get.
    """

    state: Tensor  # (3,): sum of the log quotients, number of batches measured, log quotient not yet counted or nan

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("state", torch.tensor([0.0, 0.0, torch.nan]))
        self.value: float | None = None  # the weight, once it is settled
        self._calls = 0
        self._scale: Tensor | None = None
        self._squares: list[Tensor] = []

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def measure(self, loss: Tensor, sources: list[Tensor]) -> Tensor:
        """Give the loss with weight 0, and watch what the coming backward pass brings to it and to the student's layer.

        Args:
            loss: The criterion's value.
            sources: What the student's layer returned: what is read from it may not lie on the way to the task loss.
        """
        sources = [source for source in sources if source.requires_grad]
        gradients = torch.autograd.grad(loss, sources, retain_graph=True, allow_unused=True)
        pairs = [(s, g) for s, g in zip(sources, gradients, strict=True) if g is not None]
        own = torch.stack([gradient.norm(dtype=torch.float32) for _, gradient in pairs]).norm()
        weighted = loss * 0
        weighted.register_hook(self._watch_loss)  # type: ignore[no-untyped-call]
        self._squares = []
        for source, _ in pairs:
            source.register_hook(partial(self._watch_source, own, len(pairs)))  # type: ignore[no-untyped-call]
        return weighted

    def _watch_loss(self, gradient: Tensor) -> None:
        self._scale = gradient.detach()  # the factor that the caller put on the whole loss

    def _watch_source(self, own: Tensor, count: int, gradient: Tensor) -> None:
        if self._scale is None:  # another match at this layer is measuring; the loss comes first in a backward pass
            return
        self._squares.append(gradient.norm(dtype=torch.float32).square())
        if len(self._squares) == count:
            self.state[2] = (torch.stack(self._squares).sum().sqrt() / self._scale.abs() / own).log()
            self._scale = None

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def collect(self, name: str) -> None:
        """Count what the last backward pass showed, on every process, and settle the weight when enough is known."""
        self._calls += 1
        log = self.state[2]
        measured = torch.stack([log, torch.ones_like(log)]) if log.isfinite() else torch.zeros_like(self.state[:2])
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(measured)
        if measured[1] > 0:
            self.state[:2] += measured / measured[1]
        self.state[2] = torch.nan
        self._settle()
        if self.value is not None:
            logger.info("weight of %s set to %.4g", name, self.value)
        elif self._calls > 4 * BATCHES:
            raise RuntimeError(
                f"weight='auto' of {name} saw no usable gradient in {self._calls} batches; add the distiller's .loss "
                "to the loss you call backward() on, or pass a number"
            )

    def _settle(self) -> None:
        total, count, _ = self.state.tolist()
        self.value = RATIO * float(torch.tensor(total / count).exp()) if count >= BATCHES else None

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._settle()
