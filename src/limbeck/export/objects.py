"""From what an exported detector gives to objects, in numpy alone: it may be copied to where torch is not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def objects(outputs: Mapping[str, Array], size: tuple[int, int], settings: Mapping[str, Any]) -> dict[str, Array]:
    """The objects of one image.

    Args:
        outputs: Of one image: ``boxes`` (A, 4) as left, top, right, bottom in pixels and ``scores`` (A, K) in [0, 1];
            of RetinaNet and FCOS also ``levels`` (A), the level of the pyramid of each.
        size: Height and width of the image, in pixels.
        settings: As the file's metadata has them under ``postprocess``.

    Returns:
        ``boxes`` (n, 4), ``labels`` (n) from 0 and ``scores`` (n), the surest first.
    """
    boxes, scores = outputs["boxes"], outputs["scores"]
    height, width = size
    boxes = np.clip(boxes, 0, np.array([width, height, width, height], boxes.dtype))
    place, label = _candidates(scores, outputs.get("levels"), settings)
    found = {"boxes": boxes[place], "labels": label, "scores": scores[place, label]}
    if "overlap" in settings:
        kept = _apart(found["boxes"], found["labels"], found["scores"], settings["overlap"])[: settings["detections"]]
    else:
        kept = np.argsort(-found["scores"], kind="stable")
        inside = np.all(found["boxes"][:, 2:] > found["boxes"][:, :2], axis=1)
        kept = kept[inside[kept]]  # the others are in the padding
    return {name: value[kept] for name, value in found.items()}


def _candidates(scores: Array, levels: Array | None, settings: Mapping[str, Any]) -> tuple[Array, Array]:
    """Rows and classes of the scores that are worth a look: the best of each level, of each class, or of each row."""
    if settings["best_of"] == "row":  # a query of DETR has one class
        return np.arange(len(scores)), scores.argmax(1)
    place, label = (each.ravel() for each in np.indices(scores.shape))
    group = {"level": levels, "class": None, "image": np.zeros(len(scores), np.int64)}[settings["best_of"]]
    of_pair = label if group is None else group[place]
    flat, chosen = scores.ravel(), []
    for each in np.unique(of_pair):
        pairs = np.flatnonzero((of_pair == each) & (flat > settings["score"]))
        chosen.append(pairs[np.argsort(-flat[pairs], kind="stable")[: settings["candidates"]]])
    pairs = np.concatenate(chosen) if chosen else np.zeros(0, np.int64)
    return place[pairs], label[pairs]


def _apart(boxes: Array, labels: Array, scores: Array, overlap: float) -> Array:
    """What is left when less sure boxes of a class go that overlap a surer one by more: non-maximum suppression."""
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    rest, kept = np.argsort(-scores, kind="stable"), []
    while len(rest):
        best, rest = rest[0], rest[1:]
        kept.append(best)
        corner = np.maximum(boxes[best, :2], boxes[rest, :2])
        shared = np.clip(np.minimum(boxes[best, 2:], boxes[rest, 2:]) - corner, 0, None).prod(1)
        with np.errstate(invalid="ignore"):  # of two boxes without an area
            ratio = shared / (area[best] + area[rest] - shared)
        rest = rest[~((ratio > overlap) & (labels[rest] == labels[best]))]
    return np.array(kept, np.int64)
