"""The processes that share the slices of a network, as ``torchrun`` has started them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from torch import distributed


@dataclass(frozen=True)
class Processes:
    """How many there are, and which of them this is."""

    rank: int
    count: int

    @classmethod
    def started(cls) -> Processes:
        return cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))

    def wait(self) -> None:
        """Until all have come as far."""
        if self.count > 1:
            _connect()
            distributed.barrier()

    def gather(self, value: Any) -> list[Any]:
        """What each of them has."""
        if self.count == 1:
            return [value]
        _connect()
        gathered: list[Any] = [None] * self.count
        distributed.all_gather_object(gathered, value)
        return gathered


def _connect() -> None:
    if not distributed.is_initialized():
        distributed.init_process_group("gloo")
