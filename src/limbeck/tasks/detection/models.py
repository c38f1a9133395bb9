"""Detectors by name: torchvision's, also with any backbone of timm under a feature pyramid."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.detection import FCOS, FasterRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.ssdlite import SSDLiteHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from limbeck.core.capture import Layer
from limbeck.core.modules import evaluating
from limbeck.models.build import Inputs
from limbeck.models.checkpoints import load_weights
from limbeck.models.files import function_in
from limbeck.models.run_folder import RunFolder
from limbeck.tasks.detection.pyramids import CHANNELS, MULTIPLE, Pyramid, levels_of_backbone
from limbeck.tasks.detection.transformer_levels import encoder_path, levels_of_hf
from limbeck.tasks.detection.transformers import TransformerDetector, build_hf_detector

ANCHORS = (32, 64, 128, 256, 512)  # pixels, by level
TASKS = ("detection", "instance")  # of runs whose students are detectors


class AsTheyAre(GeneralizedRCNNTransform):  # type: ignore[misc]
    """Normalise and batch images that have their size already: student and teacher see the same pixels."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__(1, 1, list(mean), list(std), size_divisible=MULTIPLE)

    def resize(self, image: Tensor, target: Any = None) -> tuple[Tensor, Any]:
        return image, target


def build_detector(name: str, classes: list[str], *, masks: bool = False) -> tuple[nn.Module, Inputs]:
    """A detector by name, with the inputs it expects; without trained weights, but for a run folder.

    Every detector is called as torchvision's are: in training with a list of images in [0, 1] and their targets, which
    gives named losses; in evaluation with the images, which gives boxes, labels (0 is the background) and scores. None
    resizes images.

    Args:
        name: ``torchvision:HEAD/timm:BACKBONE`` with a head in ``HEADS``, ``torchvision:NAME``, ``hf:FOLDER`` (a
            transformer of the DETR family), ``FILE.py:FUNCTION`` (called with ``num_classes=``, which counts the
            background), or a run folder, which brings its weights.
        classes: Names of the classes.
        masks: It has to give masks, too.

    Raises:
        ValueError: There is no such model, it gives no masks, or a run folder's classes are others.
    """
    kind, _, rest = name.partition(":")
    run = RunFolder(Path(name))
    if kind == "torchvision":
        model, inputs = _from_torchvision(rest, len(classes))
    elif kind == "hf":
        model, inputs = build_hf_detector(Path(rest), classes)
    elif kind.endswith(".py"):
        model, inputs = _taking_images_as_they_are(function_in(Path(kind), rest)(num_classes=len(classes) + 1))
    elif run.has_student():
        return _from_run(run, classes, masks=masks)
    else:
        raise ValueError(
            f"no detector {name!r}: write torchvision:HEAD/timm:BACKBONE (heads: {', '.join(HEADS)}), "
            "torchvision:NAME, hf:FOLDER, FILE.py:FUNCTION, or the folder of a finished run"
        )
    if masks and not gives_masks(model):
        raise ValueError(f"{name} gives boxes without masks; torchvision:maskrcnn/timm:BACKBONE gives both")
    return model, inputs


def gives_masks(model: nn.Module) -> bool:
    return getattr(getattr(model, "roi_heads", None), "mask_predictor", None) is not None


def is_detector(name: str) -> bool:
    """Whether a name is that of a detector, and of nothing else."""
    kind, _, rest = name.partition(":")
    run = RunFolder(Path(name))
    if kind == "torchvision":
        return "/timm:" in rest or rest in known_to_torchvision()
    return run.has_student() and run.card()["task"] in TASKS


def backbone_path(model: nn.Module) -> str:
    """The path of the part that a detector shares with classifiers; empty where it has none by a usual name."""
    if isinstance(model, TransformerDetector):
        return encoder_path(model)
    paths = [name for name, _ in model.named_modules()]
    return next((path for path in ("backbone.body", "backbone.features", "backbone") if path in paths), "")


def levels_of(model: nn.Module) -> dict[int, Layer]:
    """The maps of a detector's pyramid by stride, in pixels; none where it has none."""
    return levels_of_hf(model) if isinstance(model, TransformerDetector) else levels_of_backbone(model)


def known_to_torchvision() -> list[str]:
    """Detectors of boxes and masks, so not of keypoints."""
    return [name for name in models.list_models(module=models.detection) if not name.startswith("keypoint")]


def _from_torchvision(name: str, classes: int) -> tuple[nn.Module, Inputs]:
    head, slash, backbone = name.partition("/timm:")
    if not slash and name in known_to_torchvision():
        made = models.get_model(name, weights=None, weights_backbone=None, num_classes=classes + 1)
        return _taking_images_as_they_are(made)
    if head not in HEADS or not slash:
        known = [f"{each}/timm:BACKBONE" for each in HEADS] + known_to_torchvision()
        nearest = get_close_matches(name, known, n=3) if not slash else get_close_matches(head, HEADS, n=3)
        raise ValueError(f"no detector torchvision:{name}: write {', '.join(nearest or known)}")
    return _on_timm(head, backbone, classes)


def _on_timm(head: str, backbone: str, classes: int) -> tuple[nn.Module, Inputs]:
    import timm

    if not timm.is_model(backbone.partition(".")[0]):
        nearest = get_close_matches(backbone, timm.list_models(), n=3)
        raise ValueError(f"timm has no backbone {backbone!r}; nearest: {', '.join(nearest) or 'none'}")
    try:
        model = HEADS[head](backbone, classes)
        with torch.no_grad(), evaluating(model):
            model.get_submodule("backbone")(torch.zeros(1, 3, 2 * MULTIPLE, 3 * MULTIPLE))
    except (AssertionError, RuntimeError) as error:
        raise ValueError(f"timm:{backbone} is no backbone for images of any size ({error})") from None
    config = timm.get_pretrained_cfg(backbone)
    model.transform = AsTheyAre(config.mean, config.std)
    return model, _inputs_of(model)


def _taking_images_as_they_are(model: nn.Module) -> tuple[nn.Module, Inputs]:
    if isinstance(transform := getattr(model, "transform", None), GeneralizedRCNNTransform):
        model.transform = AsTheyAre(tuple(transform.image_mean), tuple(transform.image_std))
    return model, _inputs_of(model)


def _inputs_of(model: nn.Module) -> Inputs:
    transform = getattr(model, "transform", None)
    if transform is None:
        return Inputs(256, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), MULTIPLE)
    return Inputs(256, tuple(transform.image_mean), tuple(transform.image_std), MULTIPLE)


def _two_stage(kind: type[FasterRCNN], backbone: str, classes: int) -> nn.Module:
    pyramid = Pyramid(backbone, (4, 8, 16, 32), LastLevelMaxPool)
    anchors = AnchorGenerator(tuple((size,) for size in ANCHORS), ((0.5, 1.0, 2.0),) * len(ANCHORS))
    levels = ["0", "1", "2", "3"]
    pools = {"box_roi_pool": MultiScaleRoIAlign(levels, 7, 2)}
    if kind is MaskRCNN:
        pools["mask_roi_pool"] = MultiScaleRoIAlign(levels, 14, 2)
    model: nn.Module = kind(pyramid, classes + 1, rpn_anchor_generator=anchors, **pools)
    return model


def _retinanet(backbone: str, classes: int) -> nn.Module:
    sizes = tuple((size, int(size * 2 ** (1 / 3)), int(size * 2 ** (2 / 3))) for size in ANCHORS)
    anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(ANCHORS))
    model: nn.Module = RetinaNet(_above_eighth(backbone), classes + 1, anchor_generator=anchors)
    return model


def _fcos(backbone: str, classes: int) -> nn.Module:
    model: nn.Module = FCOS(_above_eighth(backbone), classes + 1)
    return model


def _ssdlite(backbone: str, classes: int) -> nn.Module:
    anchors = DefaultBoxGenerator([[2, 3]] * len(ANCHORS), min_ratio=10, max_ratio=90)
    norm = partial(nn.BatchNorm2d, eps=1e-3)
    head = SSDLiteHead([CHANNELS] * len(ANCHORS), anchors.num_anchors_per_location(), classes + 1, norm)
    model: nn.Module = SSD(_above_eighth(backbone), anchors, (MULTIPLE, MULTIPLE), classes + 1, head=head)
    return model


def _above_eighth(backbone: str) -> Pyramid:
    return Pyramid(backbone, (8, 16, 32), partial(LastLevelP6P7, CHANNELS, CHANNELS))


HEADS: dict[str, Callable[[str, int], nn.Module]] = {
    "fasterrcnn": partial(_two_stage, FasterRCNN),
    "maskrcnn": partial(_two_stage, MaskRCNN),
    "retinanet": _retinanet,
    "fcos": _fcos,
    "ssdlite": _ssdlite,
}


def _from_run(run: RunFolder, classes: list[str], *, masks: bool) -> tuple[nn.Module, Inputs]:
    card = run.card()
    if card["task"] not in TASKS:
        raise ValueError(f"{run} is a run of {card['task']}, not of a detector")
    run.card(classes)
    model, inputs = build_detector(card["model"], card["classes"], masks=masks)
    load_weights(model, str(run.student))
    return model, inputs


@torch.no_grad()
def inherit(student: nn.Module, teacher: nn.Module) -> list[str]:
    """Start a detector's neck and heads from the teacher's, wherever names and shapes agree.

    Args:
        student: Whose weights are changed, but for its ``backbone.body``.
        teacher: Whose weights are taken.

    Returns:
        The names of the student's tensors that have no counterpart, and stay as they were.

    Raises:
        ValueError: None has one.
    """
    source = teacher.state_dict()
    own = {name: value for name, value in student.state_dict().items() if not name.startswith("backbone.body.")}
    strange = {name for name, value in own.items() if name not in source or source[name].shape != value.shape}
    apart = {name.rpartition(".")[0] for name in strange}  # a bias is nothing without its weight
    taken = {name for name in own if name.rpartition(".")[0] not in apart}
    if not any(own[name].ndim > 1 for name in taken):
        raise ValueError(
            f"no layer of {type(student).__name__}'s neck or heads has the shape of the teacher's; leave --inherit out"
        )
    for name in taken:
        own[name].copy_(source[name])
    return sorted(own.keys() - taken)
