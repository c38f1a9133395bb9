"""What may be chosen for a classifier's data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from limbeck.data.parts import HeldOut
from limbeck.data.problems import OnBadData
from limbeck.tasks.classification.transforms import Augment
from limbeck.training.ranges import check_ranges


@dataclass(frozen=True)
class Data:
    """Which images are trained on, and how they are augmented.

    Args:
        data: A folder with train/CLASS/*.jpg and val/ or test/ likewise; or with CLASS/*.jpg, of which a tenth is held
            out; or cifar10:DIR, cifar100:DIR (downloaded to DIR); or digits (8x8 pixels, comes with scikit-learn).
        unlabelled: A folder of further images without labels: the distillation loss is on all, the task loss on the
            labelled.
        images: Use only this many training images, chosen by --data-seed evenly over the classes.
        labels: Use the labels of only this many training images, chosen likewise; the others count as unlabelled.
        labelled_share: Beside unlabelled images, labelled ones are repeated until they are at least this share of an
            epoch.
        balance: Draw every class equally often in an epoch, which stays as long: images of small classes several times.
        augment: photo: random resized crop and flip; strong: that and TrivialAugment; rand: that and RandAugment;
            small: random shift by an eighth and flip; shift: no flip (digits, letters); none. By default photo, but
            small for images of up to 64 pixels, of which a crop can leave too little.
        erasing: Probability that a rectangle of a training image is blacked out.
        load_size: Pixels at which images are augmented, before each model gets its own size. By default the larger of
            the models' sizes, but no more than the shorter side of a typical training image (the median).
        val_data: A folder or list of the validation images, where they are not in --data.
        split: The part of the data that is measured on; by default val, or else test.
        on_bad_data: What becomes of an image that cannot be decoded: an error, or left out and counted (skip).
        data_seed: Seed of the choices above, apart from --seed so that runs with other seeds see the same images.
    """

    data: str
    unlabelled: Path | None = None
    images: int | None = None
    labels: int | None = None
    labelled_share: float = 0.25
    balance: bool = False
    augment: Augment | None = None
    erasing: float = 0.0
    load_size: int | None = None
    val_data: Path | None = None
    split: HeldOut | None = None
    on_bad_data: OnBadData = "error"
    data_seed: int = 0

    def __post_init__(self) -> None:
        check_ranges(vars(self))
