"""What data hold, as a few letters: by them a run that goes on knows whether it still sees the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from limbeck.data.index import stamp
from limbeck.data.parts import Samples


def contents(train: Samples, val: Samples) -> dict[str, str]:
    """Names and bytes of the files, and the annotations, of training and validation images."""
    parts = {"training data (names, bytes and annotations)": train, "validation data (likewise)": val}
    return {name: hashed(images.facts()) for name, images in parts.items()}


def hashed(facts: Iterable[Path | Tensor | str]) -> str:
    """A hash of the facts in their order.

    A file counts by its name, that of its folder, and its size: not by where it lies, since data may be moved, nor by
    its pixels, which would have to be read.
    """
    digest = hashlib.blake2b(digest_size=6)
    for fact in facts:
        if isinstance(fact, Path):
            size, _ = stamp(str(fact)) or (None, None)  # of what is gone, which is told elsewhere
            digest.update(f"{fact.parent.name}/{fact.name} {size}\n".encode("utf-8", "surrogateescape"))
        elif isinstance(fact, Tensor):
            digest.update(fact.numpy().tobytes())
        else:
            digest.update(f"{fact}\n".encode())
    return digest.hexdigest()
