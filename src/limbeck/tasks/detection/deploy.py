"""Detectors as they are deployed: boxes and scores of everything that they look at, before the best are chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_convert

from limbeck.export.deployed import Deployed, Normalise, Run, Size, at_size
from limbeck.export.objects import objects
from limbeck.export.ties import FirstOfEqual
from limbeck.models.model import Model
from limbeck.tasks.detection.task import in_pixels_of
from limbeck.tasks.detection.transformer_levels import run_on_noise
from limbeck.tasks.detection.transformers import HUNDRED, TransformerDetector

Scores = Callable[[Mapping[str, Tensor]], Tensor]  # (B, A, K) in [0, 1], of what a head gives


def deploy(model: Model) -> Deployed:
    """A detector of images of any size.

    Raises:
        ValueError: It has two stages, or is of a kind that is not known.
    """
    network = model.module
    if isinstance(network, TransformerDetector):
        output = run_on_noise(network.model)
        last_is_nothing, settings = _settings(network, output)
        deployed = _deployed(Queries(network, model, last_is_nothing), ("boxes", "scores"), settings)
        return replace(deployed, unordered=output.get("enc_outputs_class") is not None)  # it chooses its queries
    for kind, (scores, grouped) in ONE_STAGE.items():
        if isinstance(network, kind):
            chosen = {
                "best_of": grouped,
                "score": network.score_thresh,
                "candidates": network.topk_candidates,
                "overlap": network.nms_thresh,
                "detections": network.detections_per_img,
            }
            return _deployed(Anchors(network, model, scores), ("boxes", "scores", "levels"), chosen)
    raise ValueError(
        f"a {type(network).__name__} cannot be exported: how many regions its second stage looks at depends on the "
        "image, which torch.export does not follow; export a detector of one stage (retinanet, fcos, ssdlite) or of "
        "transformers (hf:FOLDER)"
    )


def _deployed(module: nn.Module, outputs: tuple[str, ...], settings: Mapping[str, Any]) -> Deployed:
    return Deployed(module.eval(), outputs, partial(Detector, settings=settings), about={"postprocess": settings})


class Anchors(nn.Module):
    """Of images (B, 3, H, W) in [0, 1] the boxes (B, A, 4), scores (B, A, K) and levels (A) of all anchors.

    Args:
        network: A detector of one stage, as torchvision makes it.
        model: Whose network it is.
        scores: Takes the scores of its classes, without the background, from what its head gives.
    """

    def __init__(self, network: nn.Module, model: Model, scores: Scores):
        super().__init__()
        self.normalise, self.network, self.scores = Normalise(model.inputs), network, scores

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        network: Any = self.network
        pixels = self.normalise(images)
        maps = list(network.backbone(pixels).values())
        given = network.head(maps)
        size = (pixels.shape[-2], pixels.shape[-1])
        anchors = network.anchor_generator(ImageList(pixels[:1], [size]), maps)[0]
        boxes = decoded(network.box_coder, given["bbox_regression"], anchors)
        counts = network.anchor_generator.num_anchors_per_location()
        levels = [
            torch.full((count * each.shape[-2] * each.shape[-1],), level, dtype=torch.int64)
            for level, (count, each) in enumerate(zip(counts, maps, strict=True))
        ]
        return boxes, self.scores(given), torch.cat(levels)


def decoded(coder: Any, regression: Tensor, anchors: Tensor) -> Tensor:
    """Boxes (B, A, 4) in pixels from what a head says about the anchors (A, 4)."""
    boxes: Tensor
    if hasattr(coder, "decode_single"):
        flat = coder.decode_single(regression.flatten(0, 1), anchors.repeat(regression.shape[0], 1))
        boxes = flat.reshape(regression.shape)
    else:
        boxes = coder.decode(regression, anchors)
    return boxes


def _retinanet_scores(given: Mapping[str, Tensor]) -> Tensor:
    return given["cls_logits"].sigmoid()[..., 1:]


def _fcos_scores(given: Mapping[str, Tensor]) -> Tensor:
    return (given["cls_logits"].sigmoid() * given["bbox_ctrness"].sigmoid()).sqrt()[..., 1:]


def _ssd_scores(given: Mapping[str, Tensor]) -> Tensor:
    return given["cls_logits"].softmax(-1)[..., 1:]


ONE_STAGE: dict[type[nn.Module], tuple[Scores, str]] = {
    RetinaNet: (_retinanet_scores, "level"),
    FCOS: (_fcos_scores, "level"),
    SSD: (_ssd_scores, "class"),
}


class Queries(nn.Module):
    """Of images (B, 3, H, W) in [0, 1] the boxes (B, Q, 4) and scores (B, Q, K) of a DETR's queries."""

    def __init__(self, network: TransformerDetector, model: Model, last_is_nothing: bool):
        super().__init__()
        self.normalise, self.network, self.masked = Normalise(model.inputs), network.model, network.masked
        self.last_is_nothing = last_is_nothing

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        pixels = self.normalise(images)
        given = {}
        if self.masked:
            given["pixel_mask"] = self.normalise.padded(torch.ones_like(images[:, 0], dtype=torch.int64))
        with FirstOfEqual():
            output = self.network(pixel_values=pixels, **given)
        height, width = (images if self.masked else pixels).shape[-2:]
        logits = output.logits.float()
        scores = logits.softmax(-1)[..., :-1] if self.last_is_nothing else logits.sigmoid()
        left, top, right, bottom = box_convert(output.pred_boxes.float(), "cxcywh", "xyxy").unbind(-1)
        return torch.stack([left * width, top * height, right * width, bottom * height], -1), scores


def _settings(network: TransformerDetector, output: Any) -> tuple[bool, dict[str, Any]]:
    """Whether the last class of a query is no object, and how the best are chosen."""
    logits = output.logits
    if logits.shape[-1] == network.model.config.num_labels + 1:
        return True, {"best_of": "row"}
    most = 100 if network.model.config.model_type in HUNDRED else logits.shape[1]
    return False, {"best_of": "image", "score": 0.0, "candidates": most}


class Detector(nn.Module):
    """What is called as a detector in eval mode is, and runs its exported file, image by image.

    Args:
        run: Runs the file.
        size: Of the images that the file takes; ``None``: any.
        settings: How the best boxes are chosen.
    """

    def __init__(self, run: Run, size: Size | None, settings: Mapping[str, Any]):
        super().__init__()
        self.run, self.size, self.settings = run, size, settings
        self.device_of = nn.Parameter(torch.zeros(()))  # the device is that of a module's parameters

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        return [self._of(image) for image in images]

    def _of(self, image: Tensor) -> dict[str, Tensor]:
        own = (image.shape[1], image.shape[2])
        size = self.size or own
        outputs = {name: np.asarray(value.cpu()) for name, value in self.run(at_size(image[None], size)).items()}
        single = {name: value if name == "levels" else value[0] for name, value in outputs.items()}
        found = {name: torch.from_numpy(value) for name, value in objects(single, size, self.settings).items()}
        found["boxes"] = in_pixels_of(own, size, found["boxes"])
        found["labels"] += 1  # 0 is the background
        return {name: value.to(image.device) for name, value in found.items()}
