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
        expected = deployed.run(images)
        for name, value in expected.items():
            if given[name].shape != value.shape:
                shape, own = tuple(given[name].shape), tuple(value.shape)
                raise ValueError(f"{name} is {shape} of images {tuple(images.shape)}, torch's {own}")
        if deployed.unordered:
            given = in_order_of(expected, given)
        for name, value in expected.items():
            found = _compared(name, value, given[name], tuple(images.shape))
            if name not in worst or not found.relative <= worst[name].relative:
                worst[name] = found
    return list(worst.values())


def _compared(name: str, expected: Tensor, given: Tensor, images: tuple[int, ...]) -> Difference:
    largest = (expected.double() - given.double()).abs().max().item()
    return Difference(name, largest, largest / _magnitude(expected), images)


def _magnitude(values: Tensor) -> float:
    return max(values.double().abs().max().item(), 1e-12)


def in_order_of(expected: Outputs, given: Outputs) -> Outputs:
    """The rows of ``given`` in the order of the rows of ``expected`` that they are nearest to.

    Each is paired with one, by all outputs together, so that none may be missing, twice or changed.

    Args:
        expected: Outputs (B, Q, ...) whose rows of a place belong together, as box and scores of a query.
        given: The same, the rows of an image in any order.
    """
    from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

    distances = [
        torch.cdist(value / _magnitude(value), given[name] / _magnitude(value), p=float("inf"))
        for name, value in expected.items()
    ]
    cost = torch.stack(distances).amax(0).nan_to_num(1e6, 1e6)
    places = torch.stack([torch.from_numpy(linear_sum_assignment(each.numpy())[1]) for each in cost])
    return {name: value.gather(1, places[..., None].expand_as(value)) for name, value in given.items()}


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
