"""The losses of the steps since the last line of the log, kept on the device: reading them waits for it."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import Tensor


class Losses:
    """Losses of steps, to be read together."""

    def __init__(self, accelerator: Accelerator):
        self.accelerator = accelerator
        self._names: list[str] = []
        self._steps: list[Tensor] = []  # (terms) each

    def add(self, names: list[str], values: Tensor) -> None:
        self._names = names
        self._steps.append(values)

    def __len__(self) -> int:
        return len(self._steps)

    def means(self, step: int) -> dict[str, float]:
        """Means over the steps that were added, the last of which was ``step``, and all processes; they are forgotten.

        Raises:
            FloatingPointError: One is not finite.
        """
        losses = self.accelerator.reduce(torch.stack(self._steps), "mean").cpu()  # (steps, terms)
        first, self._steps = step - len(self._steps), []
        if (bad := (~losses.isfinite()).nonzero()).numel():
            row, term = bad[0].tolist()
            raise FloatingPointError(
                f"the loss {self._names[term]} is {losses[row, term]:.4g} at step {first + row + 1}"
            )
        return dict(zip(self._names, losses.mean(0).tolist(), strict=True))
