"""Detectors by name: torchvision's, also with any backbone of timm under a feature pyramid; transformers'."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from limbeck.core.modules import evaluating
from limbeck.data.inputs import Inputs
from limbeck.models import huggingface
from limbeck.models.build import FILE, Source, build
from limbeck.models.files import model_at
from limbeck.models.model import Model
from limbeck.tasks.detection.cut_head import cut_head
from limbeck.tasks.detection.heads import HEADS
from limbeck.tasks.detection.pyramids import MULTIPLE, levels_of_backbone
from limbeck.tasks.detection.queries import find_queries
from limbeck.tasks.detection.transformer_levels import find_backbone, levels_of_transformer
from limbeck.tasks.detection.transformers import TransformerDetector, build_transformer

FORM = f"torchvision:HEAD/timm:BACKBONE (heads: {', '.join(HEADS)}), torchvision:NAME"
TASKS = ("detection", "instance")  # of runs whose students are detectors


class AsTheyAre(GeneralizedRCNNTransform):  # type: ignore[misc]
    """Normalise and batch images that have their size already: student and teacher see the same pixels."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__(1, 1, list(mean), list(std), size_divisible=MULTIPLE)

    def resize(self, image: Tensor, target: Any = None) -> tuple[Tensor, Any]:
        return image, target


def build_detector(name: str, classes: list[str], size: int | None = None, *, masks: bool = False) -> Model:
    """A detector by name; see ``limbeck.models.build.build``.

    Every detector is called as torchvision's are: in training with a list of images in [0, 1] and their targets, which
    gives named losses; in evaluation with the images, which gives boxes, labels (0 is the background) and scores. None
    resizes images. A function in a file is called with ``num_classes=``, which counts the background.

    Args:
        name: Of the detector.
        classes: Names of the classes.
        size: Not heeded: it takes images of any size.
        masks: It has to give masks, too.

    Raises:
        ValueError: There is no such model, it gives no masks, or a run folder's classes are others.
    """
    model = build(name, classes, SOURCES, tasks=TASKS)
    if masks and not gives_masks(model.module):
        raise ValueError(f"{name} gives boxes without masks; torchvision:maskrcnn/timm:BACKBONE gives both")
    return model


def gives_masks(model: nn.Module) -> bool:
    return getattr(getattr(model, "roi_heads", None), "mask_predictor", None) is not None


def _from_torchvision(name: str, classes: list[str], _: int | None) -> Model:
    head, slash, backbone = name.partition("/timm:")
    if not slash and name in known_to_torchvision():
        module = models.get_model(name, weights=None, weights_backbone=None, num_classes=len(classes) + 1)
        return _taking_images_as_they_are(module, classes)
    if head not in HEADS or not slash:
        known = [f"{each}/timm:BACKBONE" for each in HEADS] + known_to_torchvision()
        nearest = get_close_matches(name, known, n=3) if not slash else get_close_matches(head, HEADS, n=3)
        raise ValueError(f"no detector torchvision:{name}: write {', '.join(nearest or known)}")
    return _on_timm(head, backbone, classes)


def known_to_torchvision() -> list[str]:
    """Detectors of boxes and masks, so not of keypoints."""
    return [name for name in models.list_models(module=models.detection) if not name.startswith("keypoint")]


def is_torchvision(name: str) -> bool:
    return "/timm:" in name or name in known_to_torchvision()


def _on_timm(head: str, backbone: str, classes: list[str]) -> Model:
    import timm

    if not timm.is_model(backbone.partition(".")[0]):
        nearest = get_close_matches(backbone, timm.list_models(), n=3)
        raise ValueError(f"timm has no backbone {backbone!r}; nearest: {', '.join(nearest) or 'none'}")
    try:
        module = HEADS[head](backbone, len(classes))
        with torch.no_grad(), evaluating(module):
            module.get_submodule("backbone")(torch.zeros(1, 3, 2 * MULTIPLE, 3 * MULTIPLE))
    except (AssertionError, RuntimeError) as error:
        raise ValueError(f"timm:{backbone} is no backbone for images of any size ({error})") from None
    config = timm.get_pretrained_cfg(backbone)
    module.transform = AsTheyAre(config.mean, config.std)
    return _detector(module, classes)


def _from_hf(name: str, classes: list[str], _: int | None) -> Model:
    module, inputs = build_transformer(Path(name), classes)
    return _transformer(module, inputs, classes)


def _transformer(module: TransformerDetector, inputs: Inputs, classes: list[str]) -> Model:
    finders: dict[str, Any] = {"find_levels": levels_of_transformer, "find_queries": find_queries}
    return Model(module, inputs, classes, find_backbone(module), **finders)


def is_hf(name: str) -> bool:
    return Path(name).is_dir() and huggingface.kind_of(Path(name)) == "detection"


def _from_file(name: str, classes: list[str], _: int | None) -> Model:
    module = model_at(name, len(classes) + 1)
    if isinstance(module, TransformerDetector):
        return _transformer(module, Inputs(), classes)
    return _taking_images_as_they_are(module, classes)


def _taking_images_as_they_are(module: nn.Module, classes: list[str]) -> Model:
    if isinstance(transform := getattr(module, "transform", None), GeneralizedRCNNTransform):
        module.transform = AsTheyAre(tuple(transform.image_mean), tuple(transform.image_std))
    return _detector(module, classes)


def _detector(module: nn.Module, classes: list[str]) -> Model:
    transform = getattr(module, "transform", None)
    mean, std = (transform.image_mean, transform.image_std) if transform else ((0.0,) * 3, (1.0,) * 3)
    inputs = Inputs(None, tuple(mean), tuple(std), MULTIPLE)
    return Model(module, inputs, classes, find_encoder(module), find_levels=levels_of_backbone, find_head=cut_head)


def find_encoder(module: nn.Module) -> str:
    """The path of the part that a detector shares with classifiers; empty where it has none by a usual name."""
    paths = {name for name, _ in module.named_modules()}
    usual = ("backbone.body", "backbone.features", "backbone")
    return next((path for path in usual if path in paths), "")


SOURCES = {
    "torchvision": Source(FORM, _from_torchvision, is_torchvision),
    "hf": Source("hf:FOLDER", _from_hf, is_hf),
    FILE: Source("FILE.py:FUNCTION", _from_file),
}
