"""Labelled and unlabelled images: from folders, from torchvision's CIFAR, from scikit-learn's digits."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from limbeck.data.images import EXTENSIONS, read_image, typical_size

UNLABELLED = -1


@dataclass(frozen=True)
class Images:
    """Images with a label each; ``UNLABELLED`` where it has none."""

    items: Sequence[Path] | Tensor  # files, or (N, 3, H, W) uint8
    labels: Sequence[int]
    classes: list[str]
    notes: list[str] = field(default_factory=list)  # what was skipped, for the user to read

    def __len__(self) -> int:
        return len(self.items)

    def read(self, index: int) -> Tensor:
        """One image (3, H, W) uint8; ``ValueError`` that names the file where it cannot be read."""
        item = self.items[index]
        if isinstance(item, Tensor):
            return item
        try:
            return read_image(item)
        except ValueError as error:
            raise ValueError(f"{error}, or pass --skip-bad-images") from None

    def typical_size(self) -> tuple[int, int]:
        """The median height and width, of a sample of the files."""
        if isinstance(self.items, Tensor):
            return self.items.shape[2], self.items.shape[3]
        return typical_size(self.items)

    def take(self, indices: Sequence[int]) -> Images:
        items = self.items[list(indices)] if isinstance(self.items, Tensor) else [self.items[i] for i in indices]
        return dataclasses.replace(self, items=items, labels=[self.labels[i] for i in indices])


def load_images(data: str, *, skip_bad: bool = False, seed: int = 0) -> tuple[Images, Images]:
    """Training and validation images.

    Args:
        data: A folder with ``train/CLASS/*.jpg`` and ``val/`` or ``test/`` likewise; one with ``CLASS/*.jpg``, of which
            a tenth is split off by seed; ``cifar10:DIR`` or ``cifar100:DIR``, downloaded to DIR by torchvision; or
            ``digits``.
        skip_bad: Read every file once beforehand, and leave out those that are no readable image.
        seed: Of the split.

    Raises:
        ValueError: No images, an empty class, classes that differ between the parts, or an unreadable file.
    """
    name, _, root = data.partition(":")
    if name in ("cifar10", "cifar100") and root:
        return _cifar(name, root)
    if data == "digits":
        return split(_digits(), 0.25, seed)
    folder = Path(data)
    if not folder.is_dir():
        raise ValueError(f"no folder {folder}; pass a folder of images, cifar10:DIR, cifar100:DIR or digits")
    held_out = [folder / part for part in ("val", "test") if (folder / part).is_dir()]
    if not (folder / "train").is_dir():
        return split(read_folder(folder, skip_bad=skip_bad), 0.1, seed)
    if not held_out:
        return split(read_folder(folder / "train", skip_bad=skip_bad), 0.1, seed)
    train, val = (read_folder(part, skip_bad=skip_bad) for part in (folder / "train", held_out[0]))
    if train.classes != val.classes:
        differ = sorted(set(train.classes) ^ set(val.classes))
        raise ValueError(f"{folder}: train and {held_out[0].name} have not the same classes; only one has {differ[:5]}")
    return train, val


def read_folder(folder: Path, *, skip_bad: bool = False) -> Images:
    """Images of ``folder/CLASS/**``, labelled by the class folder's place in alphabetical order."""
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    if not classes:
        raise ValueError(f"{folder} has no class folders; it should hold CLASS/IMAGE.jpg for every class")
    items: list[Path] = []
    labels: list[int] = []
    notes: list[str] = []
    for label, name in enumerate(classes):
        files, note = list_files(folder / name, skip_bad=skip_bad)
        if not files:
            raise ValueError(f"class folder {folder / name} holds no readable image; fill or remove it")
        items += files
        labels += [label] * len(files)
        notes += note
    return Images(items, labels, classes, notes)


def read_unlabelled(folder: Path, classes: list[str], *, skip_bad: bool = False) -> Images:
    """Every image below a folder, without labels."""
    if not folder.is_dir():
        raise ValueError(f"no folder {folder} of unlabelled images")
    files, notes = list_files(folder, skip_bad=skip_bad)
    if not files:
        raise ValueError(f"{folder} holds no image; the endings read are {' '.join(sorted(EXTENSIONS))}")
    return Images(files, [UNLABELLED] * len(files), classes, notes)


def list_files(folder: Path, *, skip_bad: bool) -> tuple[list[Path], list[str]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    images = [path for path in files if path.suffix.lower() in EXTENSIONS]
    notes = [f"{folder}: {len(files) - len(images)} files are no images by their ending"] * (len(files) > len(images))
    bad = [path for path in images if skip_bad and not _readable(path)]
    if bad:
        images = [path for path in images if path not in set(bad)]
        notes.append(f"{folder}: skipped {len(bad)} unreadable images: {', '.join(path.name for path in bad)}")
    return images, notes


def _readable(path: Path) -> bool:
    try:
        read_image(path)
    except ValueError:
        return False
    return True


def split(images: Images, fraction: float, seed: int) -> tuple[Images, Images]:
    """Split a fraction of every class off for validation, by seed."""
    kept, held_out = [], []
    for members in shuffled_by_class(images, seed):
        count = max(1, round(fraction * len(members)))
        if count == len(members):
            raise ValueError(f"class {images.classes[images.labels[members[0]]]} has one image only; a split needs two")
        held_out += members[:count]
        kept += members[count:]
    return images.take(sorted(kept)), images.take(sorted(held_out))


def first_of_each_class(images: Images, count: int, seed: int) -> list[int]:
    """Indices of ``count`` images chosen by seed, as evenly over the classes as they allow."""
    if count > len(images):
        raise ValueError(f"asked for {count} of {len(images)} images")
    ranked = [(rank, index) for members in shuffled_by_class(images, seed) for rank, index in enumerate(members)]
    return sorted(index for _, index in sorted(ranked)[:count])


def shuffled_by_class(images: Images, seed: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    members: dict[int, list[int]] = {}
    for index in torch.randperm(len(images), generator=generator).tolist():
        members.setdefault(images.labels[index], []).append(index)
    return [members[label] for label in sorted(members)]


def _cifar(name: str, root: str) -> tuple[Images, Images]:
    from torchvision import datasets

    dataset = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    try:
        parts = [dataset(root, train=train, download=True) for train in (True, False)]
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{name} is not in {root} and could not be downloaded: {error}") from None
    train, val = (
        Images(torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), part.targets, part.classes)
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
    return Images(images, digits.target.tolist(), [str(name) for name in digits.target_names])
