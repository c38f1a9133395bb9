"""Whether an exported file gives what the student gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from limbeck.export.deployed import Deployed, Outputs, Run, at_size

LARGEST = (
    1e-4  # difference, over the largest magnitude of the output; float32 has 1.2e-7, and a deep sum ten times that
)


@dataclass(frozen=True)
class Difference:
    """The largest difference of an output, over the largest magnitude that it has."""

    output: str
    largest: float  # in the output's own unit
    relative: float
    images: tuple[int, ...]  # shape (B, 3, H, W) of the images that had it


def differences(deployed: Deployed, run: Run, batches: Sequence[Tensor]) -> list[Difference]:
    """The largest difference of each output to torch's, over batches (B, 3, H, W) of images in [0, 1].

    Raises:
        ValueError: The file does not run on one of them, or gives something else than numbers of the same shape.
    """
    worst: dict[str, Difference] = {}
    for images in batches:
        try:
            given = run(images)
        except Exception as error:  # of onnxruntime's many
            raise ValueError(
                f"it does not run on images {tuple(images.shape)}: {str(error).strip().splitlines()[0]}"
            ) from error
        for name, expected in deployed.run(images).items():
            found = _compared(name, expected, given[name], tuple(images.shape))
            if name not in worst or not found.relative <= worst[name].relative:
                worst[name] = found
    return list(worst.values())


def _compared(name: str, expected: Tensor, given: Tensor, images: tuple[int, ...]) -> Difference:
    if given.shape != expected.shape:
        raise ValueError(f"{name} is {tuple(given.shape)} of images {images}, torch's {tuple(expected.shape)}")
    expected, given = expected.double(), given.double()
    largest = (expected - given).abs().max().item()
    return Difference(name, largest, largest / max(expected.abs().max().item(), 1e-12), images)


def batches_of(images: Sequence[Tensor], deployed: Deployed, batch: int | None) -> list[Tensor]:
    """Batches of one image, of as many as were traced and of another number; of two sizes where any may be.

    Args:
        images: Each (3, H, W), in [0, 1].
        deployed: What is compared.
        batch: The number of images where it is fixed.
    """
    own = deployed.size or tuple(images[0].shape[1:])
    sizes = [own] if deployed.size else [own, (own[0] * 3 // 4 + 5, own[1] * 5 // 4 + 3)]
    counts = [batch] if batch else [1, 2, 3]
    return [_batch(images, count, sizes[index % len(sizes)]) for index, count in enumerate([*counts, counts[0]])]


def _batch(images: Sequence[Tensor], count: int, size: tuple[int, ...]) -> Tensor:
    chosen = [images[index % len(images)][None] for index in range(count)]
    return torch.cat([at_size(each, size).clamp(0, 1) for each in chosen])


def repeated(run: Run, batch: int) -> Run:
    """What runs a file for a fixed number of images with fewer of them: the last is repeated."""

    def filled(images: Tensor) -> Outputs:
        return run(torch.cat([images, images[-1:].expand(batch - len(images), -1, -1, -1)]))

    return filled
