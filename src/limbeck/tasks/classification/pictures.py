"""Pictures of what a classifier is trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from limbeck.data.order import Key
from limbeck.tasks.classification.dataset import UNLABELLED
from limbeck.tasks.classification.mixing import MixedImages
from limbeck.tasks.classification.transforms import TrainImages


def batch_panels(data: TrainImages | MixedImages, keys: Sequence[Key]) -> Iterator[tuple[str, Tensor]]:
    """Augmented images, called by their classes and files, so that a wrong label can be found.

    Mixed ones are called by the classes of both images with their shares, and by the file that another was mixed into.
    """
    images = (data.images if isinstance(data, MixedImages) else data).images
    for key in keys:
        sample = data[key]
        label, item = int(sample["label"]), images.items[int(sample["index"])]
        named = "no label" if label == UNLABELLED else images.classes[label]
        shares = sample.get("target", torch.empty(0))
        if (shares > 0).sum() > 1:
            both = zip(*(each.tolist() for each in shares.topk(2)), strict=True)
            named = " + ".join(f"{share:.0%} {images.classes[index]}" for share, index in both)
        yield f"{named}: {item.name}" if isinstance(item, Path) else named, sample["image"]
