"""What benchmarks/robustness.py trains: sets of images, models, and cells of both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from limbeck.tasks.classification import recipe as classification
from limbeck.tasks.classification.mixing import Mixing
from limbeck.tasks.detection import instance
from limbeck.tasks.detection import recipe as detection
from limbeck.tasks.detection.recipe import LevelOptions
from limbeck.tasks.options import MatchOptions, TeacherOptions
from limbeck.tasks.semantic import recipe as semantic
from limbeck.training.recipe import Budget, Recipe
from limbeck.training.usual import Optimizer

NETS = Path(__file__).with_name("robustness_nets.py")
GFL, DETR = (Path(__file__).with_name(name) for name in ("gfl.py", "detr.py"))
CIFAR_NETS = Path(__file__).with_name("cifar_resnet.py")


@dataclass(frozen=True)
class Set:
    """A set of images, and how long one trains on it: short. Its sizes are the data's; nothing is tuned."""

    task: Literal["classification", "semantic", "detection", "instance"]
    folder: str  # as robustness_data makes it
    metric: str
    epochs: int
    teacher_epochs: int
    images: int | None = None  # that the students see; the teacher sees all
    size: int = 32  # pixels; of the shorter side, for masks and boxes

    def recipe(self, data: str, seed: int, optimizer: Optimizer, epochs: int, **given: Any) -> Recipe:
        """A recipe with the defaults of the task: to distil if a teacher is given, else to train alone."""
        base = {"semantic": semantic.BUDGET, "detection": detection.BUDGET, "instance": detection.BUDGET}
        budget = replace(
            base.get(self.task, Budget()),
            epochs=epochs,
            optimizer=optimizer,
            seed=seed,
            evaluate_every=epochs,
            workers=0,  # which changes no result
        )
        module: Any = {"classification": classification, "semantic": semantic, "detection": detection}.get(
            self.task, instance
        )
        make: Callable[..., Recipe] = module.distill if "teacher" in given else module.train
        if self.task == "classification":
            given.setdefault("size", self.size)
        if "teacher" in given:
            method, layers = given.pop("method"), given.pop("layers")
            both = (layers,) if "." in (layers or "") else ()  # a layer's path, in either network
            task_weight = 1.0
            if method == "FunctionMatching":  # arXiv 2106.05237
                method, task_weight, given["mixing"] = "KD:temperature=1", 0.0, Mixing(mixup=1.0)
            given["matching"] = MatchOptions((method,), task_weight=task_weight, student_layer=both, teacher_layer=both)
            given["teacher_options"] = TeacherOptions(teacher_check=False)  # its own run has measured it
            layers = None if both else layers
            given |= {"levels": LevelOptions(layers)} if module in (detection, instance) else {"layers": layers}
        return make(self._images(data), budget=budget, **given)

    def _images(self, data: str) -> Any:
        if self.task == "classification":
            return classification.Data(data, images=self.images)
        if self.task == "semantic":
            return semantic.Data(Path(data), ignore_index=11, short_side=self.size)
        return detection.Data(Path(data), short_side=(self.size,), long_side=self.size * 4 // 3)


SETS = {
    "digits": Set("classification", "digits", "top1", 24, 36),
    "cifar-2k": Set("classification", "cifar10", "top1", 18, 16, images=2000),
    "cifar-10k": Set("classification", "cifar10", "top1", 5, 16),
    "cells": Set("classification", "cells", "top1", 50, 16, images=256),
    "patches": Set("classification", "patches", "top1", 24, 60),
    "objects": Set("classification", "objects", "top1", 48, 60),
    "camvid": Set("semantic", "camvid", "miou", 12, 36, size=96),
    "bccd": Set("detection", "bccd", "box_ap", 12, 36, size=128),
    "scenes": Set("detection", "scenes", "box_ap", 4, 12, size=64),
    "coco128": Set("instance", "coco128", "mask_ap", 24, 96, size=128),
}

MODELS = {
    "resnet": "timm:resnet10t",
    "lite0": "timm:tf_efficientnet_lite0",
    "test_resnet": "timm:test_resnet",
    "resnet14x2": f"{CIFAR_NETS}:resnet14x2",
    "resnet8": f"{CIFAR_NETS}:resnet8",
    "vit": f"{NETS}:vit",
    "vit_tiny": f"{NETS}:vit_tiny",
    "deit": f"{NETS}:deit",
    "convnext": f"{NETS}:convnext",
    "mobilenetv3": "timm:mobilenetv3_small_050",
    "mobilenetv4": "timm:mobilenetv4_conv_small_035",
    "lcnet": "timm:lcnet_050",
    "ghostnet": "timm:ghostnet_050",
    "efficientnet": "timm:test_efficientnet",
    "fpn-resnet18": "smp:FPN/resnet18",
    "pspnet-mobilenetv2": "smp:PSPNet/tu-mobilenetv2_050",
    "fpn-mobilenetv3": "smp:FPN/tu-mobilenetv3_small_050",
    "fcos-resnet": f"{NETS}:fcos_resnet",
    "fcos-mobilenet": f"{NETS}:fcos_mobilenet",
    "gfl-resnet": f"{GFL}:gfl_resnet",
    "gfl-mobilenet": f"{GFL}:gfl_mobilenet",
    "detr-large": f"{DETR}:detr_large",
    "detr-small": f"{DETR}:detr_small",
    "maskrcnn-resnet": "torchvision:maskrcnn/timm:resnet10t",
    "maskrcnn-mobilenet": "torchvision:maskrcnn/timm:mobilenetv3_small_050",
}


@dataclass(frozen=True)
class Cell:
    """A student on a set of images, by an optimizer, alone and beside a teacher."""

    data: str
    teacher: str
    student: str
    optimizer: Optimizer

    def __str__(self) -> str:
        return f"{self.data}, {self.teacher} to {self.student}, {self.optimizer}"


CELLS = [
    Cell("digits", "resnet", "mobilenetv3", "sgd"),
    Cell("patches", "resnet", "efficientnet", "sgd"),
    Cell("objects", "lite0", "lcnet", "sgd"),
    Cell("digits", "resnet", "vit_tiny", "adamw"),
    Cell("patches", "resnet", "mobilenetv3", "adamw"),
    Cell("cifar-2k", "convnext", "efficientnet", "sgd"),
    Cell("camvid", "fpn-resnet18", "pspnet-mobilenetv2", "sgd"),
    Cell("objects", "convnext", "mobilenetv4", "adamw"),
    Cell("cifar-2k", "resnet", "vit_tiny", "adamw"),
    Cell("cells", "resnet", "efficientnet", "sgd"),
    Cell("cifar-10k", "resnet", "efficientnet", "sgd"),
    Cell("patches", "convnext", "ghostnet", "sgd"),
    Cell("cifar-2k", "vit", "test_resnet", "adamw"),
    Cell("digits", "convnext", "efficientnet", "adamw"),
    Cell("objects", "lite0", "vit_tiny", "sgd"),
    Cell("cifar-2k", "resnet14x2", "resnet8", "sgd"),
    Cell("patches", "resnet", "vit_tiny", "sgd"),
    Cell("bccd", "fcos-resnet", "fcos-mobilenet", "sgd"),
    Cell("objects", "lite0", "efficientnet", "adamw"),
    Cell("camvid", "fpn-resnet18", "pspnet-mobilenetv2", "adamw"),
    Cell("digits", "vit", "lcnet", "sgd"),
    Cell("patches", "convnext", "mobilenetv4", "adamw"),
    Cell("cifar-10k", "vit", "test_resnet", "sgd"),
    Cell("cifar-10k", "convnext", "mobilenetv4", "sgd"),
    Cell("cifar-2k", "resnet", "mobilenetv3", "sgd"),
    Cell("cifar-2k", "resnet", "lcnet", "adamw"),
    Cell("cells", "resnet", "vit_tiny", "adamw"),
    Cell("cifar-10k", "resnet", "mobilenetv3", "adamw"),
    Cell("cifar-2k", "vit", "deit", "adamw"),
    Cell("camvid", "fpn-resnet18", "fpn-mobilenetv3", "adamw"),
    Cell("cifar-10k", "resnet14x2", "resnet8", "adamw"),
    Cell("bccd", "fcos-resnet", "fcos-mobilenet", "adamw"),
    Cell("scenes", "fcos-resnet", "fcos-mobilenet", "adamw"),
    Cell("scenes", "gfl-resnet", "gfl-mobilenet", "adamw"),
    Cell("scenes", "detr-large", "detr-small", "adamw"),
    Cell("coco128", "maskrcnn-resnet", "maskrcnn-mobilenet", "sgd"),
]
