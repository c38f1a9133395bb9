"""What teacher and student make of some validation images, before and after the training: a file of a few hundred kB.

The student's features are taken through its projectors, which are dropped when the training ends, so this is written
while they are there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.core.distiller import Distiller
from limbeck.core.features import Features
from limbeck.core.match import Match
from limbeck.core.modules import evaluating
from limbeck.training.checkpoint import write_atomically
from limbeck.training.task import Task

IMAGES = 12
CELLS = 32  # of a stored map, across and down, at most
SIMILAR = 16  # of the maps whose similarity is measured
THUMB = 128  # pixels of a stored image, at most

Read = tuple[Features, Features]  # the student's and the teacher's features of one image


@torch.no_grad()
def record_before(path: Path, distiller: Distiller, task: Task, images: Sequence[Any]) -> None:
    """Write the axes, the teacher's features on them, and the student's before the training."""
    read = features_of(distiller, task, images)
    tensors: dict[str, Tensor] = {}
    for index, batch in enumerate(images):
        if isinstance(batch, Mapping) and isinstance(shown := batch.get("image"), Tensor | list):
            tensors[f"image/{index}"] = fitted(shown[0].float(), THUMB).round().to(torch.uint8)
    for place, match in drawn(distiller, read):
        maps = [as_map(teacher[match.teacher[0]]) for _, teacher in read]
        tensors[f"mean/{place}"], tensors[f"axes/{place}"] = principal_axes(maps)
        tensors |= {f"teacher/{place}/{index}": on_axes(each, tensors, place) for index, each in enumerate(maps)}
    _write(path, tensors, {}, distiller, read, "before")


@torch.no_grad()
def record_after(path: Path, distiller: Distiller, task: Task, images: Sequence[Any]) -> None:
    """Add the student's features after the training."""
    with safetensors.safe_open(path, "pt") as file:
        similar = dict(file.metadata() or {})
    _write(path, safetensors.torch.load_file(path), similar, distiller, features_of(distiller, task, images), "after")


def _write(
    path: Path, tensors: dict[str, Tensor], notes: dict[str, str], distiller: Distiller, read: list[Read], when: str
) -> None:
    for place, match in drawn(distiller, read):
        for index, (student, teacher) in enumerate(read):
            made = as_map(match.compared(student[match.student[0]], teacher[match.teacher[0]]))
            if len(made) == len(tensors[f"mean/{place}"]):
                tensors[f"{when}/{place}/{index}"] = on_axes(made, tensors, place)
    for place, match in enumerate(distiller.matches):
        notes[f"match/{place}"] = str(match)
    for layer, other in product(*read[0]):
        if (found := similarity([(student[layer], teacher[other]) for student, teacher in read])) is not None:
            notes[f"cka/{when}/{layer}/to/{other}"] = repr(found)
    content = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, safetensors.torch.save(content, notes))


def features_of(distiller: Distiller, task: Task, images: Sequence[Any]) -> list[Read]:
    """Features of batches of one image, in eval mode."""
    read = []
    with evaluating(distiller):
        for batch in images:
            read.append(distiller.features(task.inputs(batch), task.teacher_inputs(batch)))
    return read


def drawn(distiller: Distiller, read: list[Read]) -> list[tuple[int, Match]]:
    """The matches, with their places, of one layer of each model, of which the teacher's is a map."""
    return [
        (place, match)
        for place, match in enumerate(distiller.matches)
        if len(match.student) == len(match.teacher) == 1
        and all(teacher[match.teacher[0]].ndim in (3, 4) for _, teacher in read)
    ]


def as_map(feature: Tensor) -> Tensor:
    """The map (C, H, W) of one image; tokens (1, N, D) as a square, without those before it, or else as a line."""
    if feature.ndim == 4:
        return feature[0].float()
    tokens = feature[0].float()
    side = math.isqrt(len(tokens))
    is_square = len(tokens) - side**2 <= 5  # class and register tokens stand before the others
    tokens = tokens[len(tokens) - side**2 :] if is_square else tokens
    return tokens.T.reshape(-1, side, side) if is_square else tokens.T[:, None]


def principal_axes(maps: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean (C), and the directions (C, 3) along which features vary most."""
    rows = torch.cat([each.flatten(1) for each in maps], 1).T.double()
    mean = rows.mean(0)
    _, vectors = torch.linalg.eigh((rows - mean).T @ (rows - mean))
    axes = vectors[:, -3:].flip(1)
    axes = axes * axes.sum(0).sign().where(axes.sum(0) != 0, 1.0)  # one of two signs, always the same
    return mean.float(), F.pad(axes, (0, 3 - axes.shape[1])).float()


def on_axes(feature: Tensor, tensors: Mapping[str, Tensor], place: int) -> Tensor:
    """A map (C, H, W) on the axes of a match: (3, h, w)."""
    mean, axes = tensors[f"mean/{place}"].to(feature), tensors[f"axes/{place}"].to(feature)
    return fitted(torch.einsum("chw,ca->ahw", feature - mean[:, None, None], axes), CELLS).half()


def fitted(image: Tensor, most: int) -> Tensor:
    """An image (C, H, W) made smaller, where it has more than so many pixels across or down."""
    height, width = image.shape[1:]
    scale = min(1.0, most / max(height, width))
    return F.adaptive_avg_pool2d(image, (max(1, round(height * scale)), max(1, round(width * scale))))


def similarity(pairs: list[tuple[Tensor, Tensor]]) -> float | None:
    """Linear CKA (https://arxiv.org/abs/1905.00414) over the positions of images; ``None`` where they have none."""
    if any(feature.ndim not in (3, 4) for pair in pairs for feature in pair):
        return None
    rows: tuple[list[Tensor], list[Tensor]] = ([], [])
    for pair in pairs:
        maps = [as_map(feature) for feature in pair]
        height, width = (min(SIMILAR, *(each.shape[side] for each in maps)) for side in (1, 2))
        for found, each in zip(rows, maps, strict=True):
            found.append(F.adaptive_avg_pool2d(each, (height, width)).flatten(1).T.double())
    one, other = (torch.cat(each) - torch.cat(each).mean(0) for each in rows)
    alike = (one.T @ one).norm() * (other.T @ other).norm()
    return ((one.T @ other).norm() ** 2 / alike).item() if alike else None
