"""Every class equally often in an epoch, however many images it has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from limbeck.data.order import seed_of
from limbeck.tasks.classification.dataset import UNLABELLED, Images


class Balance:
    """Which image stands at each place of an epoch: every class that has images at as many places, give or take one.

    Images of a small class come again only when all of it were there; of a large one, some are left out, others each
    epoch. All depends on (seed, epoch, place) alone, as the augmentation does.

    Args:
        labels: Class of each image.
        seed: Of the run.
    """

    def __init__(self, labels: Sequence[int], seed: int):
        label = torch.tensor(labels)
        self.members = [(label == each).nonzero().flatten() for each in sorted(set(labels))]
        self.length, self.seed = len(labels), seed
        self._epoch, self._images = -1, torch.empty(0)  # the last one asked for

    def __call__(self, epoch: int, place: int) -> int:
        """Index of the image at a place."""
        if epoch != self._epoch:
            self._epoch, self._images = epoch, self.images(epoch)
        return int(self._images[place])

    def images(self, epoch: int) -> Tensor:
        """Indices (N) of the images of an epoch, the classes in turn; who trains shuffles the places."""
        generator = torch.Generator().manual_seed(seed_of(self.seed, "balance", epoch))
        images = torch.empty(self.length, dtype=torch.int64)
        count = len(self.members)
        for turn, members in enumerate(self.members):
            places = torch.arange((turn + epoch) % count, self.length, count)  # another class is one short each epoch
            rounds = -(-len(places) // len(members))
            drawn = [members[torch.randperm(len(members), generator=generator)] for _ in range(rounds)]
            images[places] = torch.cat(drawn)[: len(places)]
        return images


def balance_of(images: Images, class_weights: str, seed: int) -> Balance:
    """The balance of training images.

    Raises:
        ValueError: Some have no label, or the classes are weighed, too.
    """
    if class_weights != "none":
        raise ValueError(
            f"--balance and --class-weights {class_weights} both make up for classes with few images, together "
            "too much: leave one of them out"
        )
    if unlabelled := sum(label == UNLABELLED for label in images.labels):
        raise ValueError(
            f"--balance draws images by their class, and {unlabelled} of {len(images)} have none: leave it out, or "
            "take --class-weights balanced"
        )
    return Balance(images.labels, seed)


def describe_balance(images: Images) -> str:
    """What a user should know of how often images are seen."""
    counts = Counter(label for label in images.labels if label != UNLABELLED).most_common()
    each = sum(count for _, count in counts) / len(counts)
    ends = [f"{images.classes[label]} ({count} images) {each / count:.2g} times" for label, count in counts]
    return f"balanced: every class about {each:.0f} times an epoch, each image of {ends[0]}, of {ends[-1]}"
