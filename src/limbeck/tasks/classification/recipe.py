"""Train or distil an image classifier."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from limbeck.data.parts import HeldOut, summary
from limbeck.data.problems import OnBadData
from limbeck.methods.pairing import Side, make_matches
from limbeck.models.build import Inputs, build_model
from limbeck.models.checkpoints import load_weights
from limbeck.tasks.classification.dataset import UNLABELLED, Images, first_of_each_class
from limbeck.tasks.classification.folders import read_unlabelled
from limbeck.tasks.classification.load import load_images
from limbeck.tasks.classification.task import Classification
from limbeck.tasks.classification.transforms import Augment, TrainImages, ValImages, augmentation
from limbeck.training.recipe import EXAMPLES, Budget, Recipe

ProjectorName = Literal["off", "conv1x1", "conv1x1_if_needed", "conv_bn", "conv_bn_relu", "orthogonal"]


@dataclass(frozen=True)
class Data:
    """Which images are trained on, and how they are augmented."""

    data: str
    """A folder with train/CLASS/*.jpg and val/ or test/ likewise; or with CLASS/*.jpg, of which a tenth is held out; or
    cifar10:DIR, cifar100:DIR (downloaded to DIR); or digits (8x8 pixels, comes with scikit-learn)."""
    unlabelled: Path | None = None
    """A folder of further images without labels: the distillation loss is on all, the task loss on the labelled."""
    images: int | None = None
    """Use only this many training images, chosen by --data-seed evenly over the classes."""
    labels: int | None = None
    """Use the labels of only this many training images, chosen likewise; the others count as unlabelled."""
    labelled_share: float = 0.25
    """Beside unlabelled images, labelled ones are repeated until they are at least this share of an epoch."""
    augment: Augment = "photo"
    """photo: random resized crop and flip; strong: that and TrivialAugment; small: random shift by an eighth and flip;
    shift: no flip (digits, letters); none."""
    load_size: int | None = None
    """Pixels at which images are augmented, before each model gets its own size. By default the larger of the models'
    sizes, but no more than the shorter side of a typical training image (the median)."""
    val_data: Path | None = None
    """A folder or list of the validation images, where they are not in --data."""
    split: HeldOut | None = None
    """The part of the data that is measured on; by default val, or else test."""
    on_bad_data: OnBadData = "error"
    """What becomes of an image that cannot be decoded: an error, or left out and counted (skip)."""
    data_seed: int = 0
    """Of the choices above, apart from --seed so that runs with other seeds see the same images."""


def distill(
    data: Data,
    teacher: str,
    student: str,
    teacher_weights: str | None = None,
    student_weights: str | None = None,
    method: str = "ChannelTransform",
    layers: Literal["output", "last-map", "stages", "stages-before-activation"] | None = None,
    weight: float | str | None = None,
    projector: ProjectorName | None = None,
    student_layer: tuple[str, ...] = (),
    teacher_layer: tuple[str, ...] = (),
    size: int | None = None,
    teacher_size: int | None = None,
    label_smoothing: float = 0.0,
    teacher_dtype: Literal["fp32", "bf16", "fp16"] = "fp32",
    teacher_compile: bool = False,
    teacher_check: bool = True,
    budget: Budget = Budget(),
) -> Recipe:
    """Distil an image classifier from a bigger one.

    Args:
        data: Images.
        teacher: timm:NAME, torchvision:NAME, FILE.py:FUNCTION, or the folder of a finished run.
        student: Likewise.
        teacher_weights: A .safetensors or .pth file for the teacher, or "pretrained"; a run folder brings its own.
        student_weights: To start the student from; a classifier for other classes is left out. From scratch by default.
        method: A name that limbeck methods lists, with options as in KD:temperature=2,standardise=True; or FILE.py:NAME
            for a criterion of your own.
        layers: Where to read instead of where the method does: at the output, the last map, or every stage.
        weight: Of the method's loss: a number; auto, measured over the first batches; or a schedule, as
            EarlyDecay:weight=6 or WarmUp:weight=1. By default what limbeck methods says.
        projector: From the student's channels to the teacher's; by default what limbeck methods says.
        student_layer: Dotted paths of the student's layers (see limbeck layers); by default those of the method.
        teacher_layer: Of the teacher, likewise, one for each of the student's.
        size: The student's image size in pixels; its own by default.
        teacher_size: The teacher's.
        label_smoothing: Of the cross entropy.
        teacher_dtype: Precision in which the teacher's weights are held.
        teacher_compile: Compile the teacher with torch.compile.
        teacher_check: Evaluate the teacher first, and stop if it is no better than chance.
        budget: Optimizer, schedule and length.
    """
    torch.manual_seed(budget.seed)
    train_images, val_images = _images(data)
    classes = train_images.classes
    student_model, student_inputs = _model(student, student_weights, classes, size, new_head=True)
    teacher_model, teacher_inputs = _model(teacher, teacher_weights, classes, teacher_size, new_head=False)
    load_size, notes = _load_size(data, train_images, [student_inputs, teacher_inputs])
    matches = make_matches(
        method,
        Side(student_model, student_inputs.size, student_layer),
        Side(teacher_model, teacher_inputs.size, teacher_layer),
        weight=weight,
        projector=projector,
        layers=layers,
    )
    labelled = [index for index, label in enumerate(train_images.labels) if label != UNLABELLED]
    dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[teacher_dtype]
    return Recipe(
        task=Classification(
            len(classes), student_inputs, teacher_inputs, label_smoothing, len(labelled) / len(train_images)
        ),
        student=student_model,
        teacher=teacher_model,
        matches=matches,
        train_data=TrainImages(train_images, augmentation(data.augment, load_size), budget.seed),
        examples=labelled[:EXAMPLES],
        val_data=ValImages(val_images, load_size),
        budget=budget,
        card=_card(student, student_inputs, classes, load_size, data),
        prepare={"dtype": dtype, "compile": teacher_compile},
        teacher_check=teacher_check,
        notes=[*train_images.notes, *val_images.notes, *notes],
    )


def train(
    data: Data,
    model: str,
    weights: str | None = None,
    size: int | None = None,
    label_smoothing: float = 0.0,
    budget: Budget = Budget(),
) -> Recipe:
    """Train an image classifier alone: to make a teacher, or the baseline with the same budget as a distilled student.

    Args:
        data: Images; unlabelled ones are left out.
        model: timm:NAME, torchvision:NAME, FILE.py:FUNCTION, or the folder of a finished run.
        weights: A .safetensors or .pth file to start from, or "pretrained"; a classifier for other classes is left out.
        size: Image size in pixels; the model's own by default.
        label_smoothing: Of the cross entropy.
        budget: Optimizer, schedule and length.
    """
    torch.manual_seed(budget.seed)
    train_images, val_images = _images(dataclasses.replace(data, unlabelled=None, labelled_share=0.0))
    train_images = train_images.take([i for i, label in enumerate(train_images.labels) if label != UNLABELLED])
    classes = train_images.classes
    built, inputs = _model(model, weights, classes, size, new_head=True)
    load_size, notes = _load_size(data, train_images, [inputs])
    return Recipe(
        task=Classification(len(classes), inputs, label_smoothing=label_smoothing),
        student=built,
        train_data=TrainImages(train_images, augmentation(data.augment, load_size), budget.seed),
        val_data=ValImages(val_images, load_size),
        budget=budget,
        card=_card(model, inputs, classes, load_size, data),
        notes=[*train_images.notes, *val_images.notes, *notes],
    )


def _images(data: Data) -> tuple[Images, Images]:
    train_images, val_images = load_images(
        data.data, val_data=data.val_data, split=data.split, on_bad=data.on_bad_data, seed=data.data_seed
    )
    train_images.notes[:0] = summary(train_images, val_images)
    if data.images is not None:
        train_images = train_images.take(first_of_each_class(train_images, data.images, data.data_seed))
    if data.labels is not None:
        known = set(first_of_each_class(train_images, data.labels, data.data_seed))
        labels = [label if i in known else UNLABELLED for i, label in enumerate(train_images.labels)]
        train_images = dataclasses.replace(train_images, labels=labels)
    if data.unlabelled is not None:
        further = read_unlabelled(data.unlabelled, train_images.classes, on_bad=data.on_bad_data)
        if isinstance(train_images.items, torch.Tensor):
            raise ValueError("--unlabelled goes with a folder of labelled images; for the others use --labels")
        train_images = dataclasses.replace(
            train_images,
            items=[*train_images.items, *further.items],
            labels=[*train_images.labels, *further.labels],
            notes=[*train_images.notes, *further.notes, f"{len(further)} unlabelled images {further.origin}"],
        )
    return _with_share(train_images, data.labelled_share), val_images


def _with_share(images: Images, share: float) -> Images:
    """Repeat the labelled images, each time with an augmentation of its own, until they are this share of all."""
    labelled = [index for index, label in enumerate(images.labels) if label != UNLABELLED]
    unlabelled = len(images) - len(labelled)
    if not unlabelled:
        return images
    if not 0 <= share < 1:
        raise ValueError(f"labelled_share is {share}; it is a share from 0 up to, but not, 1")
    if not labelled:
        raise ValueError("no training image has a label: --labels must be 1 or more")
    repeats = math.ceil(share / (1 - share) * unlabelled / len(labelled))
    notes = [
        *images.notes,
        f"{unlabelled} images without labels; the {len(labelled)} with labels {repeats} times an epoch",
    ]
    again = images.take([*range(len(images)), *labelled * (repeats - 1)])
    return dataclasses.replace(again, notes=notes) if repeats > 1 else images


def _model(
    name: str, weights: str | None, classes: list[str], size: int | None, *, new_head: bool
) -> tuple[nn.Module, Inputs]:
    model, inputs = build_model(name, classes, size)
    if weights is not None:
        load_weights(model, weights, name=name, new_head=new_head)
    return model, inputs


def _load_size(data: Data, images: Images, inputs: list[Inputs]) -> tuple[int, list[str]]:
    wanted = max(each.size for each in inputs)
    size = data.load_size or min(wanted, *images.typical_size())
    sizes = " and ".join(str(each.size) for each in inputs)
    return size, [f"{len(images)} training images, augmented ({data.augment}) at {size} px, then brought to {sizes} px"]


def _card(model: str, inputs: Inputs, classes: list[str], load_size: int, data: Data) -> dict[str, Any]:
    return {
        "task": "classification",
        "model": model,
        "classes": classes,
        "load_size": load_size,
        "on_bad_data": data.on_bad_data,
        "data_seed": data.data_seed,
        **dataclasses.asdict(inputs),
    }
