"""Train or distil an object detector, or with masks an instance segmenter."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from torch import nn

from limbeck.data.order import some_of
from limbeck.methods.pairing import Side, make_matches
from limbeck.models.build import Inputs
from limbeck.tasks.classification.recipe import ProjectorName
from limbeck.tasks.detection import models as detectors
from limbeck.tasks.detection.checkpoints import load_detector
from limbeck.tasks.detection.dataset import Objects, OnBadData, load_coco
from limbeck.tasks.detection.models import backbone_path, build_detector, levels_of
from limbeck.tasks.detection.pyramids import Pyramid
from limbeck.tasks.detection.task import Detection
from limbeck.tasks.detection.transforms import TrainObjects, ValObjects, augmentation, collate
from limbeck.tasks.semantic.parts import LOOKED_OVER_AT, load_backbone
from limbeck.training.recipe import Budget, Recipe
from limbeck.training.usual import DETECTOR

BUDGET = Budget(epochs=24, batch_size=8, clip=35.0, usual=DETECTOR)  # as is usual in this field, but for its length


@dataclass(frozen=True)
class Data:
    """Which images and objects are trained on, and how they are augmented."""

    data: Path
    """A folder with annotations/instances_train2017.json or annotations/train.json (COCO json), val or test likewise,
    and the images in images/train2017, train2017 or train, and so on."""
    on_bad_data: OnBadData = "error"
    """What becomes of an image that is missing or unreadable and of an annotation that makes no sense: an error, or
    left out and counted (skip)."""
    images: int | None = None
    """Use only this many training images, chosen by --data-seed."""
    short_side: tuple[int, ...] = (800,)
    """Pixels that the shorter side of an image is brought to: in training one of these by chance, for measuring the
    last. Student and teacher see the same pixels."""
    long_side: int = 1333
    """Pixels that the longer side has at most."""
    flip: float = 0.5
    """Probability that a training image is mirrored."""
    colour: float = 0.0
    """Largest change of brightness, contrast and saturation in training."""
    data_seed: int = 0
    """Of the choice of images, apart from --seed so that runs with other seeds see the same ones."""

    def __post_init__(self) -> None:
        if self.images is not None and self.images < 1:
            raise ValueError(f"images is {self.images}; it must be 1 or more")
        if not self.short_side or min(self.short_side) < 1:
            raise ValueError(f"short_side is {self.short_side}; it must be 1 or more")
        if self.long_side < max(self.short_side):
            raise ValueError(f"long_side is {self.long_side}, less than a short side, {max(self.short_side)}")
        if not 0 <= self.flip <= 1:
            raise ValueError(f"flip is {self.flip}; it is a probability, from 0 to 1")
        if self.colour < 0:
            raise ValueError(f"colour is {self.colour}; it must be 0 or more")


def distill(
    data: Data,
    teacher: str,
    student: str,
    teacher_weights: str | None = None,
    student_weights: str | None = None,
    student_backbone: str | None = None,
    inherit: bool = False,
    frozen_norms: bool = False,
    method: str = "ChannelTransform",
    layers: Literal["levels", "stages"] | None = None,
    strides: tuple[int, ...] = (),
    weight: float | str | None = None,
    reduction: Literal["sum", "equal"] | None = None,
    projector: ProjectorName | None = None,
    student_layer: tuple[str, ...] = (),
    teacher_layer: tuple[str, ...] = (),
    teacher_dtype: Literal["fp32", "bf16", "fp16"] = "fp32",
    teacher_compile: bool = False,
    teacher_check: bool = True,
    masks: tyro.conf.Suppress[bool] = False,
    budget: Budget = BUDGET,
) -> Recipe:
    """Distil an object detector from a bigger one.

    Args:
        data: Images and objects.
        teacher: torchvision:HEAD/timm:BACKBONE, where HEAD is fasterrcnn, maskrcnn, retinanet, fcos or ssdlite, as
            torchvision:retinanet/timm:resnet50; torchvision:NAME, as torchvision:fasterrcnn_resnet50_fpn_v2; hf:FOLDER
            (a transformer of the DETR family); FILE.py:FUNCTION; or the folder of a finished run.
        student: Likewise.
        teacher_weights: A .safetensors or .pth file for the teacher, or pretrained (what torchvision publishes for
            torchvision:NAME, trained on COCO); a run folder brings its own.
        student_weights: Likewise, to start the student from; the outputs of other classes are left out. From scratch by
            default.
        student_backbone: To start the student's backbone from: a file with the weights of a classifier, or timm:NAME
            for published ones.
        inherit: Start the student's neck and heads from the teacher's, wherever names and shapes agree.
        frozen_norms: Keep the batch norms of the student's backbone as they were loaded.
        method: A name that limbeck methods lists, with options as in CWD:temperature=4; or FILE.py:NAME for a
            criterion of your own.
        layers: Where to read: levels (of both pyramids, paired by stride) or stages (of both backbones); by default
            levels.
        strides: Read only the levels at these strides, in pixels; by default all that both pyramids have.
        weight: Of the method's loss: a number; auto, measured over the first batches at each level; or a schedule, as
            EarlyDecay:weight=6 or WarmUp:weight=1. By default what limbeck methods says.
        reduction: How the levels share a weight that is a number: sum (of all positions, so that the finest level
            weighs most; the default) or equal (each level alike).
        projector: From the student's channels to the teacher's; by default what limbeck methods says.
        student_layer: Dotted paths of the student's layers (see limbeck layers); by default the levels.
        teacher_layer: Of the teacher, likewise, one for each of the student's.
        teacher_dtype: Precision in which the teacher's weights are held.
        teacher_compile: Compile the teacher with torch.compile.
        teacher_check: Evaluate the teacher first, and stop if it is no better than chance.
        budget: Optimizer, schedule and length.
    """
    torch.manual_seed(budget.seed)
    train_objects, val_objects = _objects(data, masks=masks)
    classes = train_objects.classes
    student_model, student_inputs, notes = _model(
        student, student_weights, student_backbone, classes, frozen_norms, masks
    )
    teacher_model, _ = build_detector(teacher, classes)
    if teacher_weights is not None:
        notes += load_detector(teacher_model, teacher_weights, name=teacher, classes=classes)
    if inherit:
        notes += _inherit(student_model, teacher_model)
    here, there = _side(student_model, student_layer), _side(teacher_model, teacher_layer)
    here, there, apart = _at(strides, here, there)
    matches = make_matches(method, here, there, weight=weight, projector=projector, layers=layers, reduction=reduction)
    dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[teacher_dtype]
    return Recipe(
        student=student_model,
        teacher=teacher_model,
        matches=matches,
        prepare={"dtype": dtype, "compile": teacher_compile},
        teacher_check=teacher_check,
        **_of_data(data, train_objects, val_objects, budget, masks, [*notes, *apart]),
        card=_card(student, student_inputs, classes, data, masks=masks),
    )


def train(
    data: Data,
    model: str,
    weights: str | None = None,
    backbone: str | None = None,
    frozen_norms: bool = False,
    masks: tyro.conf.Suppress[bool] = False,
    budget: Budget = BUDGET,
) -> Recipe:
    """Train an object detector alone: to make a teacher, or the baseline with the same budget as a distilled student.

    Args:
        data: Images and objects.
        model: torchvision:HEAD/timm:BACKBONE, where HEAD is fasterrcnn, maskrcnn, retinanet, fcos or ssdlite, as
            torchvision:retinanet/timm:resnet50; torchvision:NAME, as torchvision:fasterrcnn_resnet50_fpn_v2; hf:FOLDER
            (a transformer of the DETR family); FILE.py:FUNCTION; or the folder of a finished run.
        weights: A .safetensors or .pth file to start from, or pretrained (what torchvision publishes for
            torchvision:NAME, trained on COCO); the outputs of other classes are left out.
        backbone: To start the backbone from: a file with the weights of a classifier, or timm:NAME for published ones.
        frozen_norms: Keep the backbone's batch norms as they were loaded.
        budget: Optimizer, schedule and length.
    """
    torch.manual_seed(budget.seed)
    train_objects, val_objects = _objects(data, masks=masks)
    built, inputs, notes = _model(model, weights, backbone, train_objects.classes, frozen_norms, masks)
    return Recipe(
        student=built,
        **_of_data(data, train_objects, val_objects, budget, masks, notes),
        card=_card(model, inputs, train_objects.classes, data, masks=masks),
    )


def _objects(data: Data, *, masks: bool) -> tuple[Objects, Objects]:
    if find_spec("faster_coco_eval") is None:
        raise ValueError("detectors are measured by faster-coco-eval: pip install 'limbeck[coco]'")
    train_objects, val_objects = load_coco(data.data, on_bad=data.on_bad_data, outlines=masks)
    return train_objects.take(some_of(len(train_objects), data.images, data.data_seed)), val_objects


def _model(
    name: str, weights: str | None, backbone: str | None, classes: list[str], frozen_norms: bool, masks: bool
) -> tuple[nn.Module, Inputs, list[str]]:
    model, inputs = build_detector(name, classes, masks=masks)
    notes = []
    if backbone is not None:
        load_backbone(model, backbone, backbone_path(model))
    if weights is not None:
        notes = load_detector(model, weights, name=name, classes=classes, new_head=True)
    if frozen_norms:
        if not isinstance(model.backbone, Pyramid):
            raise ValueError(
                f"--frozen-norms is of backbones of timm, as in torchvision:HEAD/timm:BACKBONE, not {name}"
            )
        model.backbone.freeze_norms()
    return model, inputs, notes


def _inherit(student: nn.Module, teacher: nn.Module) -> list[str]:
    fresh = detectors.inherit(student, teacher)
    rest = f"; {len(fresh)} tensors have no counterpart ({', '.join(fresh[:3])}, ...)" if fresh else ""
    return [f"the student's neck and heads start from the teacher's{rest}"]


def _side(model: nn.Module, layers: tuple[str, ...]) -> Side:
    levels = {} if layers else levels_of(model)
    return Side(model, LOOKED_OVER_AT, layers, encoder=backbone_path(model), levels=levels)


def _at(strides: tuple[int, ...], student: Side, teacher: Side) -> tuple[Side, Side, list[str]]:
    """Both sides with the levels at some strides alone, and what is to be said of the others."""
    if strides:
        for side, role in ((student, "student"), (teacher, "teacher")):
            if missing := set(strides) - side.levels.keys():
                raise ValueError(
                    f"the {role} has levels at the strides {sorted(side.levels)}, not at {sorted(missing)}"
                )
        student, teacher = (
            dataclasses.replace(side, levels={stride: side.levels[stride] for stride in strides})
            for side in (student, teacher)
        )
    apart = sorted(student.levels.keys() ^ teacher.levels.keys())
    note = f"levels at the strides {apart} are in one of the two pyramids only, and follow nothing"
    return student, teacher, [note] if apart and student.levels and teacher.levels else []


def _of_data(
    data: Data, train_objects: Objects, val_objects: Objects, budget: Budget, masks: bool, notes: Sequence[str]
) -> dict[str, Any]:
    sides = "/".join(map(str, data.short_side))
    sizes = f"{len(train_objects)} training images, shorter side {sides} px, longer at most {data.long_side} px"
    augment = augmentation(data.short_side, data.long_side, data.flip, data.colour)
    return {
        "task": Detection(val_objects, masks=masks),
        "train_data": TrainObjects(train_objects, augment, budget.seed, masks=masks),
        "val_data": ValObjects(val_objects, data.short_side[-1], data.long_side),
        "collate": collate,
        "budget": budget,
        "notes": [*train_objects.notes, *val_objects.notes, sizes, *notes],
    }


def _card(model: str, inputs: Inputs, classes: list[str], data: Data, *, masks: bool) -> dict[str, Any]:
    return {
        "task": "instance" if masks else "detection",
        "model": model,
        "classes": classes,
        "short_side": data.short_side[-1],
        "long_side": data.long_side,
        "on_bad_data": data.on_bad_data,
        "data_seed": data.data_seed,
        **dataclasses.asdict(inputs),
    }
