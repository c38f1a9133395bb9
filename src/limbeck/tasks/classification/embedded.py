"""Data sets that come with a library: torchvision's CIFAR, scikit-learn's digits."""

from __future__ import annotations

import torch

from limbeck.tasks.classification.dataset import Images, split_off


def load_embedded(data: str, seed: int) -> tuple[Images, Images] | None:
    """Training and validation images of ``cifar10:DIR``, ``cifar100:DIR`` or ``digits``; ``None`` for any other."""
    name, _, root = data.partition(":")
    if name in ("cifar10", "cifar100") and root:
        return _cifar(name, root)
    return split_off(_digits(), 0.25, seed) if data == "digits" else None


def _cifar(name: str, root: str) -> tuple[Images, Images]:
    from torchvision import datasets

    dataset = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    try:
        parts = [dataset(root, train=train, download=True) for train in (True, False)]
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{name} is not in {root} and could not be downloaded: {error}") from None
    train, val = (
        Images(
            torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(),
            part.targets,
            part.classes,
            origin=f"{name}'s {'training' if part.train else 'test'} images",
        )
        for part in parts
    )
    return train, val


def _digits() -> Images:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ValueError("the digits come with scikit-learn: pip install 'limbeck[digits]'") from None
    digits = load_digits()
    grey = torch.from_numpy(digits.images).mul(255 / 16).round().to(torch.uint8)  # (N, 8, 8)
    images = grey.unsqueeze(1).expand(-1, 3, -1, -1).contiguous()
    names = [str(name) for name in digits.target_names]
    return Images(images, digits.target.tolist(), names, origin="scikit-learn's digits")
