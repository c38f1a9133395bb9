"""Train or distil an object detector, or with masks an instance segmenter."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch

from limbeck.data.contents import contents
from limbeck.data.order import some_of
from limbeck.data.parts import summary
from limbeck.models.backbone import load_backbone
from limbeck.models.model import Model
from limbeck.models.teachers import build_teacher, check_teacher_classes
from limbeck.tasks.detection.checkpoints import load_detector
from limbeck.tasks.detection.dataset import Objects, check_some
from limbeck.tasks.detection.inherit import inherit
from limbeck.tasks.detection.load import load_objects
from limbeck.tasks.detection.models import build_detector
from limbeck.tasks.detection.options import Data, LevelOptions, StudentOptions
from limbeck.tasks.detection.pyramids import Pyramid
from limbeck.tasks.detection.task import Detection
from limbeck.tasks.detection.transforms import TrainObjects, ValObjects, augmentation, collate
from limbeck.tasks.options import MatchOptions, TeacherOptions
from limbeck.training.recipe import Budget, Recipe
from limbeck.training.usual import Usual

# As in torchvision's and mmdetection's, 0.02 for 16 images, also for a trained backbone; AdamW's likewise from scratch.
USUAL = Usual(batch_size=8, sgd=0.01, adamw=1e-3, sgd_decay=1e-4, sgd_loaded=1.0)
BUDGET = Budget(epochs=24, batch_size=8, clip=35.0, usual=USUAL)  # as is usual in this field, but for its length


@dataclass(frozen=True)
class Recipes:
    """The recipes of detectors, or with masks those of instance segmenters."""

    masks: bool

    def distill(
        self,
        data: Data,
        teacher: str,
        student: str,
        student_options: StudentOptions = StudentOptions(),
        matching: MatchOptions = MatchOptions(),
        levels: LevelOptions = LevelOptions(),
        teacher_options: TeacherOptions = TeacherOptions(),
        budget: Budget = BUDGET,
    ) -> Recipe:
        """Distil an object detector, or an instance segmenter, from a bigger one.

        Args:
            data: Images and objects; of an instance segmenter, with outlines.
            teacher: torchvision:HEAD/timm:BACKBONE, where HEAD is fasterrcnn, maskrcnn, retinanet, fcos or ssdlite, as
                torchvision:retinanet/timm:resnet50; torchvision:NAME, as torchvision:fasterrcnn_resnet50_fpn_v2;
                hf:FOLDER (a transformer of the DETR family); FILE.py:FUNCTION; or the folder of a finished run.
            student: The model that is trained, named as the teacher is. An instance segmenter gives masks, as
                torchvision:maskrcnn/timm:BACKBONE does; its teacher need not.
            student_options: What the student starts from.
            matching: Which method compares which layers of student and teacher.
            levels: Where features are read.
            teacher_options: How the teacher is loaded, held and checked.
            budget: Optimizer, schedule and length.
        """
        torch.manual_seed(budget.seed)
        train_objects, val_objects = _objects(data, masks=self.masks)
        classes, start = train_objects.classes, student_options
        student_model, notes = self._model(
            student, start.student_weights, start.student_backbone, classes, start.frozen_norms
        )
        teacher_model = build_teacher(build_detector, teacher, classes, task="detection")
        if teacher_options.teacher_weights is not None:
            notes += load_detector(teacher_model, teacher_options.teacher_weights, name=teacher)
        if start.inherit:
            notes += _inherit(student_model, teacher_model)
        matches = matching.matches(student_model, teacher_model, **vars(levels))
        other_classes = check_teacher_classes(teacher_model, classes, matches)
        notes += other_classes
        if not (matching.student_layer or matching.teacher_layer):
            notes += _unpaired(student_model, teacher_model, levels.strides)
        return Recipe(
            student=student_model.module,
            teacher=teacher_model.module,
            matches=matches,
            task_weight=matching.weight_of_task,
            **teacher_options.recipe(knows_classes=not other_classes),
            **self._of_data(data, train_objects, val_objects, budget, notes),
            loaded=student_model.loaded,
            card=self.card(student, student_model, data),
        )

    def train(
        self,
        data: Data,
        model: str,
        weights: str | None = None,
        backbone: str | None = None,
        frozen_norms: bool = False,
        budget: Budget = BUDGET,
    ) -> Recipe:
        """Train an object detector, or an instance segmenter, alone: a teacher, or the baseline of a distilled student.

        Args:
            data: Images and objects; of an instance segmenter, with outlines.
            model: torchvision:HEAD/timm:BACKBONE, where HEAD is fasterrcnn, maskrcnn (which gives masks), retinanet,
                fcos or ssdlite, as torchvision:retinanet/timm:resnet50; torchvision:NAME, as
                torchvision:fasterrcnn_resnet50_fpn_v2; hf:FOLDER (a transformer of the DETR family); FILE.py:FUNCTION;
                or the folder of a finished run.
            weights: A .safetensors or .pth file to start from, or pretrained (what torchvision publishes for
                torchvision:NAME, trained on COCO); the outputs of other classes are left out.
            backbone: What the backbone starts from: a file with the weights of a classifier, or timm:NAME for published
                ones.
            frozen_norms: Keep the backbone's batch norms as they were loaded.
            budget: Optimizer, schedule and length.
        """
        torch.manual_seed(budget.seed)
        train_objects, val_objects = _objects(data, masks=self.masks)
        built, notes = self._model(model, weights, backbone, train_objects.classes, frozen_norms)
        return Recipe(
            student=built.module,
            **self._of_data(data, train_objects, val_objects, budget, notes),
            loaded=built.loaded,
            card=self.card(model, built, data),
        )

    def card(self, name: str, model: Model, data: Data) -> dict[str, Any]:
        """What is stored beside the weights of a model of this name."""
        return {
            "task": "instance" if self.masks else "detection",
            "model": name,
            "classes": model.classes,
            "short_side": data.short_side[-1],
            "long_side": data.long_side,
            "on_bad_data": data.on_bad_data,
            "data_seed": data.data_seed,
            **dataclasses.asdict(model.inputs),
        }

    def _model(
        self, name: str, weights: str | None, backbone: str | None, classes: list[str], frozen_norms: bool
    ) -> tuple[Model, list[str]]:
        model = build_detector(name, classes, masks=self.masks)
        notes = []
        if backbone is not None:
            load_backbone(model, backbone)
        if weights is not None:
            notes = load_detector(model, weights, name=name, new_head=True)
        if frozen_norms:
            pyramid = dict(model.module.named_children()).get("backbone")
            if not isinstance(pyramid, Pyramid):
                raise ValueError(
                    f"--frozen-norms is of backbones of timm, as in torchvision:HEAD/timm:BACKBONE, not {name}"
                )
            pyramid.freeze_norms()
        return model, notes

    def _of_data(
        self, data: Data, train_objects: Objects, val_objects: Objects, budget: Budget, notes: Sequence[str]
    ) -> dict[str, Any]:
        sides = "/".join(map(str, data.short_side))
        sizes = f"{len(train_objects)} training images, shorter side {sides} px, longer at most {data.long_side} px"
        augment = augmentation(data.short_side, data.long_side, data.flip, data.colour)
        return {
            "task": Detection(val_objects, masks=self.masks),
            "train_data": TrainObjects(train_objects, augment, budget.seed, masks=self.masks),
            "val_data": ValObjects(val_objects, data.short_side[-1], data.long_side),
            "collate": collate,
            "contents": contents(train_objects, val_objects),
            "budget": budget,
            "notes": [*train_objects.notes, *val_objects.notes, sizes, *notes],
        }


OF_BOXES = Recipes(masks=False)
distill, train = OF_BOXES.distill, OF_BOXES.train


def _objects(data: Data, *, masks: bool) -> tuple[Objects, Objects]:
    if find_spec("faster_coco_eval") is None:
        raise ValueError("detectors are measured by faster-coco-eval: pip install 'limbeck[coco]'")
    train_objects, val_objects = load_objects(
        data.data,
        val_data=data.val_data,
        split=data.split,
        on_bad=data.on_bad_data,
        outlines=masks,
        seed=data.data_seed,
    )
    train_objects.notes[:0] = summary(train_objects, val_objects)
    return check_some(train_objects.take(some_of(len(train_objects), data.images, data.data_seed))), val_objects


def _inherit(student: Model, teacher: Model) -> list[str]:
    fresh = inherit(student.module, teacher.module)
    body = {name for name in student.module.state_dict() if name.startswith("backbone.body.")}
    student.mark_loaded(fresh={*fresh, *body})
    rest = f"; {len(fresh)} tensors have no counterpart ({', '.join(fresh[:3])}, ...)" if fresh else ""
    return [f"the student's neck and heads start from the teacher's{rest}"]


def _unpaired(student: Model, teacher: Model, strides: Collection[int]) -> list[str]:
    """What is to be said of levels that only one of the two has."""
    unpaired = [] if strides else sorted(student.levels.keys() ^ teacher.levels.keys())
    note = f"levels at the strides {unpaired} are in one of the two pyramids only, and follow nothing"
    return [note] if unpaired and student.levels and teacher.levels else []
