"""``weight="auto"``: find the weight of a criterion from the gradients that the student's layer gets in training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

RATIO = 0.5  # wanted: gradient of the weighted criteria / gradient of the task loss, on the student's feature
BATCHES = 8  # measured one after another at the beginning
EVERY = 8  # forward passes from one measurement to the next, from then on
RATE = 0.25  # of the exponential mean
FALL = 0.1  # least weight, of the largest that there was
FLOOR = 0.1  # least gradient of a criterion that is counted, of what a student of zeros would have to go down


class AutoWeight(nn.Module):
    """A weight such that the criterion's gradient on the student's feature is a given part of the task's.

    Each of the first ``BATCHES`` training steps is measured, then one in ``EVERY``. The weight is ``share`` times the
    exponential mean of the quotients of the two norms, in logarithms, with rate ``RATE``, and the plain mean of the
    first few. It counts from the second step on; in the first it is 0. Of the task's gradient everything counts that
    comes to the layer beside the automatic criteria at this layer; what those at later layers bring is in it. A factor
    on the whole loss, such as loss scaling, cancels. What is not finite is left out, and so is a batch that gives the
    task no gradient, as one without labels.

    Bounds: the weight never falls below ``FALL`` times the largest that it has been since it was settled, so that a
    task which is learnt by heart does not silence the teacher. A criterion's gradient counts as no less than ``FLOOR *
    value(0) / norm(feature)``, where ``value(0)`` is what it gives for a student's feature of zeros: a student that
    starts as a copy of its teacher has none at first, and the weight would have no bound.

    Under ``torch.compile`` the first ``BATCHES + 1`` steps run without compilation, and the weight stays from then on.

    Everything is in ``state_dict()``, so that a resumed run goes on bitwise. Nothing waits for the device. Processes
    agree on one number, under DDP the first one's, whose buffers all get.
    """

    sums: Tensor  # (3,): squared norms since the last count, of the gradients of task and criterion, and the floor's
    state: Tensor  # (4,): mean log quotient, number of measurements, its largest since BATCHES, relative weight
    clock: Tensor  # (2,): forward passes until the next measured one, measurements; on the host but when saved

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("sums", torch.zeros(3))
        self.register_buffer("state", torch.zeros(4))
        self.register_buffer("clock", torch.zeros(2, dtype=torch.int64))
        self.share = RATIO
        self.reduce: Callable[[Tensor], Any] | None = None  # the sum over the processes of a group; None: over all
        self.starting = True  # until BATCHES steps were measured, with something to be seen in them
        self._on_host: Sequence[int] | None = None  # what clock holds; None: to be read
        self._pending = False  # whether a backward pass has added to the sums
        self._unsettled = 0  # training steps so far, while it is starting

    def relative(self) -> Tensor:
        """The weight of the criterion over its value for a student of zeros; 0 before something was measured."""
        return self.state[3] * self.share

    def begin(self, name: str) -> bool:
        """Count what the last backward pass has shown; whether the forward pass to come is to be measured."""
        if self._on_host is None:  # once at the start of a run: the buffers are what all processes have in common
            self._pending = bool(self.sums.any())
            self._on_host = self.clock.tolist()
        wait, measured = self._on_host
        if self._pending:
            self._count()
            wait, measured = EVERY, measured + 1
        if self.starting and measured >= BATCHES:
            self.starting = not self.state[1] > 0  # waits for the device, once where all is well
        if self.starting:
            wait = 0
            self._check(name)
        self._on_host = max(0, wait - 1), measured
        return wait <= 1

    def add_floor(self, norm: Tensor, gradient: Tensor) -> None:
        """Hook of the weighted value: add the least gradient that counts, for a feature of this norm."""
        self._pending = True
        self.sums[2] += (FLOOR * gradient.detach() / norm).square()

    @torch.no_grad()
    def _count(self) -> None:
        if self.reduce is not None:
            self.reduce(self.sums)
        elif dist.is_available() and dist.is_initialized():
            dist.all_reduce(self.sums)
        task, own, floor = self.sums
        log = (task / torch.maximum(own, floor)).log() / 2
        mean, count, largest, _ = self.state
        mean = mean + (log - mean) * (1 / (count + 1)).clamp(min=RATE)
        count = count + 1
        largest = torch.where(count > BATCHES, torch.maximum(largest, mean), mean)
        relative = torch.maximum(mean, largest + math.log(FALL)).exp()
        self.state.copy_(torch.where(log.isfinite(), torch.stack([mean, count, largest, relative]), self.state))
        self.sums.zero_()
        self._pending = False

    def _check(self, name: str) -> None:
        self._unsettled += self.training
        if self._unsettled > 4 * BATCHES and self.state[1] == 0:
            raise RuntimeError(
                f"weight='auto' of {name} saw no usable gradient in {4 * BATCHES} batches; add the distiller's .loss "
                "to a loss of the task's that you call backward() on, match the module that makes the tensor where a "
                "layer returns it in an object, or pass a number"
            )

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
        if self._on_host is not None:
            self.clock.copy_(torch.tensor(self._on_host))
        super()._save_to_state_dict(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._on_host = None
        # A run that is compiled by now goes on compiled: other kernels round differently, and drop out other elements.
        self.starting = not (self.clock[1] >= BATCHES and self.state[1] > 0)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> AutoWeight:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.sums, self.state = self.sums.float(), self.state.float()  # squares have no place in half precision
        return self
