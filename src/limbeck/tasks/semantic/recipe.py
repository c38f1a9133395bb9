"""Train or distil a semantic segmenter."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch

from limbeck.data.contents import contents
from limbeck.data.images import typical_size
from limbeck.data.inputs import Inputs
from limbeck.data.order import some_of
from limbeck.data.parts import summary
from limbeck.models.backbone import load_backbone
from limbeck.models.checkpoints import load_weights
from limbeck.models.model import Model
from limbeck.models.scores import check_scores
from limbeck.models.teachers import build_teacher, check_teacher_classes, load_teacher
from limbeck.tasks.options import MatchOptions, TeacherOptions
from limbeck.tasks.semantic.dataset import Masks, check_labelled
from limbeck.tasks.semantic.load import load_masks
from limbeck.tasks.semantic.models import build_segmenter
from limbeck.tasks.semantic.options import Data, LossOptions
from limbeck.tasks.semantic.places import logits_at
from limbeck.tasks.semantic.transforms import TrainMasks, ValMasks, augmentation
from limbeck.training.recipe import Budget, Recipe
from limbeck.training.usual import Usual

# As in torchvision's and mmsegmentation's; AdamW's is for encoders from scratch, which they have none of.
USUAL = Usual(batch_size=8, sgd=0.01, adamw=1e-3, sgd_decay=5e-4)
BUDGET = Budget(batch_size=8, schedule="poly", usual=USUAL)  # as is usual in this field, but for its length


def distill(
    data: Data,
    teacher: str,
    student: str,
    student_weights: str | None = None,
    student_backbone: str | None = None,
    matching: MatchOptions = MatchOptions(),
    layers: Literal["output", "last-map", "stages"] | None = None,
    loss: LossOptions = LossOptions(),
    teacher_options: TeacherOptions = TeacherOptions(),
    budget: Budget = BUDGET,
) -> Recipe:
    """Distil a semantic segmenter from a bigger one.

    Args:
        data: Images and masks.
        teacher: smp:ARCH/ENCODER, torchvision:NAME, hf:FOLDER, FILE.py:FUNCTION, or the folder of a finished run.
        student: The model that is trained, named as the teacher is.
        student_weights: What the student starts from, by default nothing; a classifier for other classes is left out.
        student_backbone: What the student's encoder starts from: a file with the weights of a classifier, or timm:NAME
            or torchvision:NAME for published ones.
        matching: Which method compares which layers of student and teacher.
        layers: Where to read: output (the maps of class scores), last-map (what the classifier takes) or stages; by
            default as limbeck methods says.
        loss: The student's own loss.
        teacher_options: How the teacher is loaded, held and checked.
        budget: Optimizer, schedule and length.
    """
    torch.manual_seed(budget.seed)
    train_masks, val_masks = _masks(data)
    student_model = _model(student, student_weights, student_backbone, train_masks.classes)
    teacher_model = build_teacher(build_segmenter, teacher, train_masks.classes, task="semantic")
    if teacher_options.teacher_weights is not None:
        load_teacher(teacher_model, teacher_options.teacher_weights, name=teacher)
    inputs = [student_model.inputs, teacher_model.inputs]
    # Scores are compared at the mask's size, which is that of the truth.
    scores = partial(logits_at, size=_crop(data, train_masks, inputs))
    compared = [dataclasses.replace(model, read_scores=scores) for model in (student_model, teacher_model)]
    matches = matching.matches(*compared, layers=layers)
    other_classes = check_teacher_classes(teacher_model, train_masks.classes, matches)
    of_data = _of_data(data, train_masks, val_masks, budget, inputs)
    return Recipe(
        task=loss.task(train_masks, *inputs),
        student=student_model.module,
        teacher=teacher_model.module,
        matches=matches,
        task_weight=matching.weight_of_task,
        **{**of_data, "notes": [*of_data["notes"], *other_classes]},
        **teacher_options.recipe(knows_classes=not other_classes),
        loaded=student_model.loaded,
        card=_card(student, student_model, train_masks, data),
    )


def train(
    data: Data,
    model: str,
    weights: str | None = None,
    backbone: str | None = None,
    loss: LossOptions = LossOptions(),
    budget: Budget = BUDGET,
) -> Recipe:
    """Train a semantic segmenter alone: to make a teacher, or the baseline with the same budget as a distilled student.

    Args:
        data: Images and masks.
        model: smp:ARCH/ENCODER, torchvision:NAME, hf:FOLDER, FILE.py:FUNCTION, or the folder of a finished run.
        weights: A .safetensors or .pth file to start from; a classifier for other classes is left out.
        backbone: What the encoder starts from: a file with the weights of a classifier, or timm:NAME or
            torchvision:NAME for published ones.
        loss: The model's loss.
        budget: Optimizer, schedule and length.
    """
    torch.manual_seed(budget.seed)
    train_masks, val_masks = _masks(data)
    built = _model(model, weights, backbone, train_masks.classes)
    return Recipe(
        task=loss.task(train_masks, built.inputs),
        student=built.module,
        **_of_data(data, train_masks, val_masks, budget, [built.inputs]),
        loaded=built.loaded,
        card=_card(model, built, train_masks, data),
    )


def _masks(data: Data) -> tuple[Masks, Masks]:
    train_masks, val_masks = load_masks(
        data.data,
        val_data=data.val_data,
        split=data.split,
        ignore_index=data.ignore_index,
        on_bad=data.on_bad_data,
        seed=data.data_seed,
    )
    train_masks.notes[:0] = summary(train_masks, val_masks)
    return check_labelled(train_masks.take(some_of(len(train_masks), data.images, data.data_seed))), val_masks


def _short_side(data: Data, masks: Masks) -> int:
    return data.short_side or min(typical_size(masks.images))


def _crop(data: Data, masks: Masks, inputs: Sequence[Inputs]) -> tuple[int, int]:
    """Height and width of what is trained on: multiples of what the models want."""
    multiple = math.lcm(*(each.multiple for each in inputs))
    if data.crop is not None:
        if any(side % multiple for side in data.crop):
            raise ValueError(
                f"crops of {data.crop[0]}x{data.crop[1]} do not fit: the models want multiples of {multiple}"
            )
        return data.crop
    height, width = typical_size(masks.images)
    factor = _short_side(data, masks) / min(height, width) / multiple
    return math.ceil(height * factor) * multiple, math.ceil(width * factor) * multiple


def _model(name: str, weights: str | None, backbone: str | None, classes: list[str]) -> Model:
    model = build_segmenter(name, classes)
    check_scores(name, model, "semantic")
    if backbone is not None:
        load_backbone(model, backbone)
    if weights is not None:
        model.mark_loaded(fresh=load_weights(model.module, weights, name=name, new_head=True))
    return model


def _of_data(
    data: Data, train_masks: Masks, val_masks: Masks, budget: Budget, inputs: Sequence[Inputs]
) -> dict[str, Any]:
    crop, short_side = _crop(data, train_masks, inputs), _short_side(data, train_masks)
    note = f"{len(train_masks)} training images, shorter side {short_side} px, crops of {crop[0]}x{crop[1]}"
    return {
        "train_data": TrainMasks(train_masks, augmentation(crop, short_side, data.scale, data.colour), budget.seed),
        "val_data": ValMasks(val_masks, short_side),
        "val_batch_size": None if len(val_masks.sizes) == 1 else 1,
        "contents": contents(train_masks, val_masks),
        "budget": budget,
        "notes": [*train_masks.notes, *val_masks.notes, note],
    }


def _card(name: str, model: Model, masks: Masks, data: Data) -> dict[str, Any]:
    return {
        "task": "semantic",
        "model": name,
        "classes": masks.classes,
        "short_side": _short_side(data, masks),
        "ignore_index": data.ignore_index,
        "on_bad_data": data.on_bad_data,
        "data_seed": data.data_seed,
        **dataclasses.asdict(model.inputs),
    }
