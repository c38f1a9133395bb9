"""Pictures of what a classifier is trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from limbeck.data.order import Key
from limbeck.tasks.classification.dataset import UNLABELLED
from limbeck.tasks.classification.mixing import MixedImages
from limbeck.tasks.classification.transforms import TrainImages


def batch_panels(data: TrainImages | MixedImages, keys: Sequence[Key]) -> Iterator[tuple[str, Tensor]]:
    """Augmented images, called by their classes; mixed ones by the class of the image that another was mixed into."""
    classes = (data.images if isinstance(data, MixedImages) else data).images.classes
    for key in keys:
        sample = data[key]
        label = int(sample["label"])
        yield "no label" if label == UNLABELLED else classes[label], sample["image"]
