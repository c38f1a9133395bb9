"""Samples that turn out to be unreadable while a run goes on: an error, or counted and replaced."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

import torch

from limbeck.data.problems import OnBadData

T = TypeVar("T", covariant=True)
IN_A_ROW = 8  # unreadable samples, after which it is the disk and not the samples


class Readable(Protocol[T]):
    @property
    def on_bad(self) -> OnBadData: ...

    def read(self, index: int) -> T: ...

    def __len__(self) -> int: ...


class Reader(Generic[T]):
    """Reads samples; with ``skip``, the next one stands in for one that cannot be read.

    Every image was decoded before the run, so this concerns files that are damaged or taken away since. ``failed`` is
    shared with the loader's workers, so that the main process knows of them.
    """

    def __init__(self, samples: Readable[T]):
        self.samples = samples
        self.failed = torch.zeros(len(samples), dtype=torch.bool)
        if samples.on_bad == "skip":
            self.failed.share_memory_()  # type: ignore[no-untyped-call]

    def __call__(self, index: int) -> tuple[int, T]:
        """A sample, and the index of the one that it is."""
        attempts = min(IN_A_ROW, len(self.samples)) if self.samples.on_bad == "skip" else 1
        for attempt in range(attempts):
            place = (index + attempt) % len(self.samples)
            try:
                return place, self.samples.read(place)
            except ValueError as error:
                self.failed[place] = True
                wrong = error
        raise wrong

    def notes(self) -> list[str]:
        """What is to be said of samples that could not be read so far."""
        places = self.failed.nonzero().flatten().tolist()
        if not places:
            return []
        try:
            self.samples.read(places[0])
            what = "it can be read again"
        except ValueError as error:
            what = str(error)
        return [f"could not read {len(places)} of {len(self.samples)} samples, the next stood in; the first: {what}"]
