"""What a run sees when: every random choice is a function of the seed and of what it is for, so a run can be resumed.

Samplers give keys ``(epoch, index)`` instead of bare indices, so that loader workers need no state.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils.data import Sampler

Key = tuple[int, int]  # (epoch, index of the sample)


def some_of(length: int, count: int | None, seed: int) -> list[int]:
    """So many of ``length`` indices, chosen by the seed, in ascending order; all where ``count`` is ``None``."""
    if count is not None and count > length:
        raise ValueError(f"asked for {count} of {length} images")
    return sorted(torch.randperm(length, generator=torch.Generator().manual_seed(seed))[:count].tolist())


def evenly(length: int, count: int) -> list[int]:
    """So many of ``length`` indices, from the first to the last; all where there are fewer.

    >>> evenly(10, 3), evenly(2, 3)
    ([0, 4, 9], [0, 1])
    """
    return list(dict.fromkeys(round(index * (length - 1) / max(1, count - 1)) for index in range(count)))


def seed_of(*parts: int | str) -> int:
    """A seed that depends on every part, and is well mixed."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big") >> 1


@contextmanager
def seeded(*parts: int | str) -> Iterator[None]:
    """Draw from torch's CPU generator as seeded by these parts, and leave its state as it was."""
    generator = torch.default_generator
    state = generator.get_state()
    generator.manual_seed(seed_of(*parts))
    try:
        yield
    finally:
        generator.set_state(state)


class TrainOrder(Sampler[list[Key]]):
    """The micro-batches of one process in one epoch, from any step on.

    An optimizer step takes ``batch_size`` samples over all processes and accumulated micro-batches, so the number of
    either changes nothing in what is learnt. What does not fill a last batch is left out, another part each epoch.

    Args:
        length: Number of samples.
        batch_size: Samples a step.
        epoch, seed: Choose the permutation.
        start: First step of the epoch to give.
        accumulate: Micro-batches a step.
        rank, world: This process, and the number of them.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        *,
        epoch: int,
        seed: int,
        start: int = 0,
        accumulate: int = 1,
        rank: int = 0,
        world: int = 1,
    ):
        parts = accumulate * world
        if batch_size % parts:
            raise ValueError(f"batch size {batch_size} does not divide into {accumulate} x {world} micro-batches")
        if length < batch_size:
            fitting = parts
            while 4 * fitting <= length:  # at least two steps an epoch
                fitting *= 2
            raise ValueError(
                f"{length} training images are fewer than one batch of {batch_size}; pass --batch-size {fitting}"
            )
        self.length, self.batch_size, self.epoch, self.seed, self.start = length, batch_size, epoch, seed, start
        self.offsets = [(part * world + rank) * (batch_size // parts) for part in range(accumulate)]
        self.size = batch_size // parts

    def __iter__(self) -> Iterator[list[Key]]:
        generator = torch.Generator().manual_seed(seed_of(self.seed, "order", self.epoch))
        order = torch.randperm(self.length, generator=generator).tolist()
        for step in range(self.start, self.length // self.batch_size):
            for offset in self.offsets:
                first = step * self.batch_size + offset
                yield [(self.epoch, index) for index in order[first : first + self.size]]

    def __len__(self) -> int:
        return (self.length // self.batch_size - self.start) * len(self.offsets)
