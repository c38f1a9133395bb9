"""From an image to what a network takes: augmentation on the CPU, size and normalisation on the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from limbeck.data.order import Key, seeded
from limbeck.data.reader import Reader
from limbeck.tasks.classification.balance import Balance
from limbeck.tasks.classification.dataset import Images

Augment = Literal["photo", "strong", "rand", "small", "shift", "none"]
Batch = dict[str, Tensor]  # image (B, 3, S, S) uint8, label (B) int64, index (B) int64; mixed: target (B, K) float32


def augmentation(kind: Augment, size: int, erasing: float = 0.0) -> Callable[[Tensor], Tensor]:
    """An augmentation by torchvision that gives images (3, size, size).

    ``photo``: random resized crop and flip; ``strong``: that and TrivialAugment (arXiv 2103.10158); ``rand``: that and
    RandAugment (arXiv 1909.13719); ``small``: random shift by an eighth and flip, for images of 32 pixels or so;
    ``shift``: that without the flip, for digits and letters. ``erasing`` is the probability that a rectangle is blacked
    out afterwards (arXiv 1708.04896).
    """
    from torchvision.transforms import v2  # takes as long to import as torch

    plain = [v2.Resize(size, antialias=True), v2.CenterCrop(size)]
    resized = [v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip()]
    shifted = [*plain, v2.RandomCrop(size, padding=size // 8, padding_mode="reflect")]
    steps: dict[Augment, list[nn.Module]] = {
        "photo": resized,
        "strong": [*resized, v2.TrivialAugmentWide()],
        "rand": [*resized, v2.RandAugment()],
        "small": [*shifted, v2.RandomHorizontalFlip()],
        "shift": shifted,
        "none": plain,
    }
    compose: Callable[[Tensor], Tensor] = v2.Compose([*steps[kind], *[v2.RandomErasing(erasing)] * (erasing > 0)])
    return compose


class TrainImages(Dataset[Batch]):
    """Augmented images; the augmentation depends on (seed, epoch, index) alone, whoever loads it and when.

    With a balance, an index is a place in an epoch, where it says which image stands.
    """

    def __init__(self, images: Images, augment: Callable[[Tensor], Tensor], seed: int, balance: Balance | None = None):
        self.images, self.augment, self.seed, self.balance = images, augment, seed, balance
        self.reader = Reader(images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: Key) -> Batch:
        epoch, index = key
        with seeded(self.seed, "augment", epoch, index):
            index, image = self.reader(index if self.balance is None else self.balance(epoch, index))
            image = self.augment(image)
        return _sample(image, self.images, index)


class ValImages(Dataset[Batch]):
    """Images with their shorter side brought to ``size``, and the middle square of them."""

    def __init__(self, images: Images, size: int):
        self.images, self.transform = images, augmentation("none", size)
        self.reader = Reader(images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Batch:
        index, image = self.reader(index)
        return _sample(self.transform(image), self.images, index)


def _sample(image: Tensor, images: Images, index: int) -> Batch:
    return {"image": image, "label": torch.tensor(images.labels[index]), "index": torch.tensor(index)}
