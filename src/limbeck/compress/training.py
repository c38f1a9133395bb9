"""Slice-wise training: each slice of a compressed network learns by itself to give what the original's gives.

arXiv 2605.19842 (Hamreras, Singh, Orus 2026): no labels, and no gradient between slices. There the loss is the mean of
squares; it is divided by the square of the original's output here, which Adam does not notice, and which makes the
errors of slices comparable.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from limbeck.compress.layers import is_within, parts_after_selection
from limbeck.compress.runs import Call, Runs, copied
from limbeck.core.modules import Example

Inputs = Literal["original", "compressed"]
LEAST = 0.01  # relative improvement of a slice's error by an epoch that counts as one


class SliceTrainer:
    """One slice, its optimizer, and when it stops.

    Args:
        path: Of the slice.
        module: Of the compressed network.
        rate: Highest learning rate of Adam.
        patience: Epochs in a row without improvement after which it stops; ``None``: never.
    """

    def __init__(self, path: str, module: nn.Module, rate: float, patience: int | None):
        self.path, self.module, self.patience = path, module, patience
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.Adam(self.parameters, lr=rate)
        self.rate = rate
        self.best, self.stale = math.inf, 0
        self.error: float | None = None  # of the last epoch
        self._sum, self._count = torch.zeros(()), 0

    @property
    def is_done(self) -> bool:
        return self.patience is not None and self.stale >= self.patience

    def set_progress(self, progress: float) -> None:
        """Learning rate as a half cosine of how much of the training is done."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * 0.5 * (1 + math.cos(math.pi * progress))

    def step(self, output: Any, target: Any) -> None:
        """Learn from what the slice gave, with its graph, and what the original's gave."""
        loss = relative_error(output, target)
        self.optimizer.zero_grad()
        gradients = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.step()
        self._sum = self._sum.to(loss.device) + loss.detach()
        self._count += 1

    def finish_epoch(self) -> None:
        """Take the mean error of the epoch, and see whether the slice still improves."""
        if not self._count:
            return
        self.error = float(self._sum) / self._count
        if not math.isfinite(self.error):
            raise FloatingPointError(f"the error of the slice {self.path} is {self.error}; try a lower learning rate")
        self.stale = 0 if self.error < (1 - LEAST) * self.best else self.stale + 1
        self.best = min(self.best, self.error)
        self._sum, self._count = torch.zeros(()), 0

    def state_dict(self) -> dict[str, Any]:
        return {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "numbers": [self.best, self.stale, self.error, float(self._sum), self._count],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best, self.stale, self.error, total, self._count = state["numbers"]
        self._sum = torch.tensor(total)


def relative_error(output: Any, target: Any) -> Tensor:
    """The squared difference of what two slices give, over the square of the second; tensors at any depth."""
    pairs = [
        (a.float(), b.float())
        for a, b in zip(tree_leaves(output), tree_leaves(target), strict=True)
        if isinstance(b, Tensor) and b.is_floating_point()
    ]
    difference = torch.stack([(a - b).square().sum() for a, b in pairs]).sum()
    return difference / torch.stack([b.square().sum() for _, b in pairs]).sum().clamp(min=1e-30)


class SliceTraining:
    """The training of the slices of a compressed network, a batch at a time.

    Args:
        original: What the slices follow.
        compressed: Its compressed copy, of which the slices change.
        slices: Their paths, in the order in which they run.
        inputs: What the slices are fed with: the ``original``'s activations, or those of the ``compressed`` network;
            slices in parts that take what was selected among candidates always get the original's.
        rate: Highest learning rate.
        patience: Epochs in a row without improvement after which a slice stops.
    """

    def __init__(
        self,
        original: nn.Module,
        compressed: nn.Module,
        slices: Sequence[str],
        *,
        inputs: Inputs = "original",
        rate: float = 1e-3,
        patience: int | None = None,
    ):
        self.original, self.compressed, self.inputs = original.eval(), compressed.eval(), inputs
        after_selection = parts_after_selection(original)
        self._apart = {path for path in slices if is_within(path, after_selection)}
        modules = {path: compressed.get_submodule(path) for path in slices}
        self.trainers = {path: SliceTrainer(path, module, rate, patience) for path, module in modules.items()}
        self._originals, self._twins = Runs(original), Runs(compressed)

    @property
    def is_done(self) -> bool:
        """Whether every slice has stopped."""
        return all(trainer.is_done for trainer in self.trainers.values())

    def step(self, batch: Example, progress: float) -> None:
        """Let every slice that has not stopped take one step."""
        active = {path: trainer for path, trainer in self.trainers.items() if not trainer.is_done}
        for trainer in active.values():
            trainer.set_progress(progress)
        if self.inputs == "original":
            self._from_original(active, batch)
        else:
            self._from_compressed(active, batch)

    def _from_original(self, active: Mapping[str, SliceTrainer], batch: Example) -> None:
        """One forward pass of the original; each slice learns as soon as its original has run, so few maps are held."""
        self._pass_original(active, batch, {})

    def _from_compressed(self, active: Mapping[str, SliceTrainer], batch: Example) -> None:
        """One forward pass of each network: the original's gives the targets, the compressed one's the inputs."""
        following = [path for path in active if path not in self._apart]
        targets: dict[str, list[Any]] = {path: [] for path in following}
        self._pass_original(active, batch, targets)

        def learn(path: str, output: Any) -> Any:
            with torch.enable_grad():
                active[path].step(output, targets[path].pop(0))
            return copied(output)

        if following:
            self._twins.run(following, batch, after=learn, with_gradient=True)

    def _pass_original(
        self, active: Mapping[str, SliceTrainer], batch: Example, targets: Mapping[str, list[Any]]
    ) -> None:
        """Keep what the original's slices give where targets are asked for; of the others, the twins learn at once."""
        calls: dict[str, Call] = {}
        learn_at_once = active.keys() - targets.keys()

        def enter(path: str, inputs: Call) -> None:
            if path in learn_at_once:
                calls[path] = inputs

        def leave(path: str, output: Any) -> None:
            if path not in learn_at_once:
                targets[path].append(copied(output))
                return
            args, kwargs = calls.pop(path)
            with torch.enable_grad():
                active[path].step(active[path].module(*args, **kwargs), output)

        self._originals.run(list(active), batch, before=enter if learn_at_once else None, after=leave)

    def finish_epoch(self) -> None:
        for trainer in self.trainers.values():
            trainer.finish_epoch()

    def errors(self) -> dict[str, float]:
        """The mean error of each slice in the last epoch that it was trained in."""
        return {path: trainer.error for path, trainer in self.trainers.items() if trainer.error is not None}

    def state_dict(self) -> dict[str, Any]:
        return {path: trainer.state_dict() for path, trainer in self.trainers.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for path, trainer in self.trainers.items():
            trainer.load_state_dict(state[path])
