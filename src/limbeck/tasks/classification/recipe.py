"""Train or distil an image classifier."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import torch

from limbeck.data.contents import contents
from limbeck.data.parts import summary
from limbeck.models.checkpoints import load_weights
from limbeck.models.model import Model
from limbeck.models.scores import check_scores
from limbeck.models.teachers import build_teacher, check_teacher_classes, load_teacher
from limbeck.tasks.classification.balance import balance_of, describe_balance
from limbeck.tasks.classification.dataset import UNLABELLED, Images, first_of_each_class
from limbeck.tasks.classification.folders import read_unlabelled
from limbeck.tasks.classification.load import load_images
from limbeck.tasks.classification.loss import LossOptions
from limbeck.tasks.classification.mixing import MixedImages, Mixing, check_mixing
from limbeck.tasks.classification.models import build_classifier
from limbeck.tasks.classification.options import Data
from limbeck.tasks.classification.transforms import Augment, TrainImages, ValImages, augmentation
from limbeck.tasks.options import MatchOptions, TeacherOptions
from limbeck.training.recipe import EXAMPLES, Budget, Recipe

SMALL = 64  # pixels; photo's crops go down to 8 % of an image


def distill(
    data: Data,
    teacher: str,
    student: str,
    student_weights: str | None = None,
    matching: MatchOptions = MatchOptions(),
    layers: Literal["output", "distillation-head", "last-map", "embedding", "stages", "stages-before-activation"]
    | None = None,
    size: int | None = None,
    teacher_size: int | None = None,
    loss: LossOptions = LossOptions(),
    mixing: Mixing = Mixing(),
    teacher_options: TeacherOptions = TeacherOptions(),
    budget: Budget = Budget(),
) -> Recipe:
    """Distil an image classifier from a bigger one.

    Args:
        data: Images.
        teacher: timm:NAME, torchvision:NAME, FILE.py:FUNCTION, or the folder of a finished run.
        student: The model that is trained, named as the teacher is.
        student_weights: What the student starts from, by default nothing; a classifier for other classes is left out.
        matching: Which method compares which layers of student and teacher.
        layers: Where to read, by default as limbeck methods says: output, distillation head, last map, what the
            classifier takes of it (embedding), or every stage.
        size: The student's image size in pixels; its own by default.
        teacher_size: The teacher's image size in pixels; its own by default.
        loss: The student's own loss.
        mixing: Whether training images are mixed.
        teacher_options: How the teacher is loaded, held and checked.
        budget: Optimizer, schedule and length.
    """
    torch.manual_seed(budget.seed)
    train_images, val_images = _images(data)
    classes = train_images.classes
    student_model = _model(student, student_weights, classes, size)
    teacher_model = build_teacher(build_classifier, teacher, classes, teacher_size, task="classification")
    if teacher_options.teacher_weights is not None:
        load_teacher(teacher_model, teacher_options.teacher_weights, name=teacher)
    load_size, notes = _load_size(data, train_images, [student_model, teacher_model])
    labelled = [index for index, label in enumerate(train_images.labels) if label != UNLABELLED]
    matches = matching.matches(student_model, teacher_model, layers=layers)
    other_classes = check_teacher_classes(teacher_model, classes, matches)
    if mixing:
        check_mixing(matches)
    return Recipe(
        task=loss.task(train_images, student_model.inputs, teacher_model.inputs),
        student=student_model.module,
        teacher=teacher_model.module,
        matches=matches,
        task_weight=matching.weight_of_task,
        train_data=_train_data(data, train_images, load_size, loss, mixing, budget),
        examples=labelled[:EXAMPLES],
        val_data=ValImages(val_images, load_size),
        contents=contents(train_images, val_images),
        budget=budget,
        loaded=student_model.loaded,
        card=_card(student, student_model, load_size, data),
        notes=[*train_images.notes, *val_images.notes, *notes, *other_classes],
        **teacher_options.recipe(knows_classes=not other_classes),
    )


def train(
    data: Data,
    model: str,
    weights: str | None = None,
    size: int | None = None,
    loss: LossOptions = LossOptions(),
    mixing: Mixing = Mixing(),
    budget: Budget = Budget(),
) -> Recipe:
    """Train an image classifier alone: to make a teacher, or the baseline with the same budget as a distilled student.

    Args:
        data: Images; unlabelled ones are left out.
        model: timm:NAME, torchvision:NAME, FILE.py:FUNCTION, or the folder of a finished run.
        weights: A .safetensors or .pth file to start from, or "pretrained"; a classifier for other classes is left out.
        size: Image size in pixels; the model's own by default.
        loss: The model's loss.
        mixing: Whether training images are mixed.
        budget: Optimizer, schedule and length.
    """
    torch.manual_seed(budget.seed)
    train_images, val_images = _images(dataclasses.replace(data, unlabelled=None, labelled_share=0.0))
    train_images = train_images.take([i for i, label in enumerate(train_images.labels) if label != UNLABELLED])
    built = _model(model, weights, train_images.classes, size)
    load_size, notes = _load_size(data, train_images, [built])
    return Recipe(
        task=loss.task(train_images, built.inputs),
        student=built.module,
        train_data=_train_data(data, train_images, load_size, loss, mixing, budget),
        val_data=ValImages(val_images, load_size),
        contents=contents(train_images, val_images),
        budget=budget,
        loaded=built.loaded,
        card=_card(model, built, load_size, data),
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
    if data.balance:
        train_images.notes.append(describe_balance(train_images))
    return _with_share(train_images, data.labelled_share), val_images


def _train_data(
    data: Data, images: Images, load_size: int, loss: LossOptions, mixing: Mixing, budget: Budget
) -> TrainImages | MixedImages:
    augment = augmentation(augment_of(data, load_size), load_size, data.erasing)
    balance = balance_of(images, loss.class_weights, budget.seed) if data.balance else None
    augmented = TrainImages(images, augment, budget.seed, balance)
    return MixedImages(augmented, mixing, len(images.classes)) if mixing else augmented


def _with_share(images: Images, share: float) -> Images:
    """Repeat the labelled images, each time with an augmentation of its own, until they are this share of all."""
    labelled = [index for index, label in enumerate(images.labels) if label != UNLABELLED]
    unlabelled = len(images) - len(labelled)
    if not unlabelled:
        return images
    if not labelled:
        raise ValueError("no training image has a label: --labels must be 1 or more")
    repeats = math.ceil(share / (1 - share) * unlabelled / len(labelled))
    notes = [
        *images.notes,
        f"{unlabelled} images without labels; the {len(labelled)} with labels {repeats} times an epoch",
    ]
    again = images.take([*range(len(images)), *labelled * (repeats - 1)])
    return dataclasses.replace(again, notes=notes) if repeats > 1 else images


def _model(name: str, weights: str | None, classes: list[str], size: int | None) -> Model:
    model = build_classifier(name, classes, size)
    check_scores(name, model, "classification")
    if weights is not None:
        model.mark_loaded(fresh=load_weights(model.module, weights, name=name, new_head=True))
    return model


def _load_size(data: Data, images: Images, models: list[Model]) -> tuple[int, list[str]]:
    wanted = [model.inputs.square for model in models]
    size = data.load_size or min(max(wanted), *images.typical_size())
    sizes = " and ".join(map(str, wanted))
    augment = augment_of(data, size)
    return size, [f"{len(images)} training images, augmented ({augment}) at {size} px, then brought to {sizes} px"]


def augment_of(data: Data, load_size: int) -> Augment:
    return data.augment or ("small" if load_size <= SMALL else "photo")


def _card(name: str, model: Model, load_size: int, data: Data) -> dict[str, Any]:
    return {
        "task": "classification",
        "model": name,
        "classes": model.classes,
        "load_size": load_size,
        "on_bad_data": data.on_bad_data,
        "data_seed": data.data_seed,
        **({"balance": True} if data.balance else {}),  # older runs have no such entry
        **dataclasses.asdict(model.inputs),
    }
