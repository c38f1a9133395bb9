"""Pictures of what a classifier is trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from limbeck.data.order import Key
from limbeck.tasks.classification.dataset import UNLABELLED
from limbeck.tasks.classification.transforms import TrainImages


def batch_panels(data: TrainImages, keys: Sequence[Key]) -> Iterator[tuple[str, Tensor]]:
    """Augmented images, called by their classes."""
    for key in keys:
        sample = data[key]
        label = int(sample["label"])
        yield "no label" if label == UNLABELLED else data.images.classes[label], sample["image"]
