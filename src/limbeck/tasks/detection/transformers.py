"""Detectors of transformers, DETR and its kind, called as torchvision's are."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert, clip_boxes_to_image

from limbeck.data.inputs import IMAGENET_MEAN, IMAGENET_STD, Inputs
from limbeck.models import huggingface
from limbeck.tasks.detection.pyramids import MULTIPLE, padded_size
from limbeck.tasks.detection.transformer_levels import TRIED_AT, run_on_noise

AS_IS = ("d_fine", "deimv2", "rt_detr", "rt_detr_v2")  # kinds whose images are not normalised, where no file says so
CANNOT_BE_BUILT = (ImportError, OSError, RuntimeError, ValueError)
HUNDRED = ("conditional_detr", "dab-detr", "deformable_detr", "lw_detr")  # kinds that find no more in an image


class TransformerDetector(nn.Module):
    """A detector of transformers: losses by name in training, and otherwise boxes, labels and scores by image.

    Images are normalised and padded at the right and the bottom. A model that heeds the mask of the padding counts its
    positions by the image alone, so its boxes are fractions of the image; to another the padded batch is the image.
    The processors of transformers take the batch for all in training, and the image for all in evaluation, which agree
    without padding only.

    Args:
        model: As ``AutoModelForObjectDetection`` makes it.
        inputs: Mean and standard deviation of the images it takes.

    Raises:
        ValueError: The model does not give logits and boxes for images of any size.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, inputs: Inputs):
        super().__init__()
        self.model: Any = model
        self.register_buffer("mean", torch.tensor(inputs.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(inputs.std)[:, None, None], persistent=False)
        self.masked = _heeds_mask(model)

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> Any:
        """Losses whose sum is the model's own in training mode, detections in eval mode.

        Args:
            images: Each (3, H, W), in [0, 1].
            targets: For each image ``boxes`` (n, 4), as left, top, right, bottom in pixels, and ``labels`` (n) from 1
                on: 0 is the background, as torchvision has it. Needed in training mode only.
        """
        pixels, mask = self._batch(images)
        given = {"pixel_mask": mask} if self.masked else {}
        seen = images if self.masked else [pixels[0]] * len(images)  # what boxes are fractions of
        extents = pixels.new_tensor([[*image.shape[:0:-1]] * 2 for image in seen], dtype=torch.float32)
        if not self.training:
            return self._detections(self.model(pixel_values=pixels, **given), extents, images)
        if targets is None:
            raise ValueError("a detector in training mode needs targets; call eval() for what it detects")
        labels = [
            {
                "boxes": box_convert(target["boxes"].float(), "xyxy", "cxcywh") / extent,
                "class_labels": target["labels"] - 1,
            }
            for target, extent in zip(targets, extents, strict=True)
        ]
        return {"loss": self.model(pixel_values=pixels, labels=labels, **given).loss}

    def _batch(self, images: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W), normalised and padded with zeros, and a mask (B, H, W) with 1 where they are."""
        height, width = padded_size(images)
        pixels = torch.zeros(len(images), 3, height, width, dtype=self.model.dtype, device=images[0].device)
        mask = torch.zeros(len(images), height, width, dtype=torch.int64, device=images[0].device)
        for index, image in enumerate(images):
            pixels[index, :, : image.shape[1], : image.shape[2]] = (image - self.mean) / self.std
            mask[index, : image.shape[1], : image.shape[2]] = 1
        return pixels, mask

    def _detections(self, output: Any, extents: Tensor, images: list[Tensor]) -> list[dict[str, Tensor]]:
        """As ``post_process_object_detection`` of the model's image processor, and inside the image."""
        logits, boxes = output.logits.float(), output.pred_boxes.float()
        if logits.shape[-1] == self.model.config.num_labels + 1:  # the last is no object; a query has one class
            scores, labels = logits.softmax(-1)[..., :-1].max(-1)
        else:  # a query may have several classes
            most = 100 if self.model.config.model_type in HUNDRED else logits.shape[1]
            scores, index = logits.sigmoid().flatten(1).topk(min(most, logits[0].numel()))
            labels = index % logits.shape[-1]
            boxes = boxes.gather(1, (index // logits.shape[-1])[..., None].expand(-1, -1, 4))
        boxes = box_convert(boxes, "cxcywh", "xyxy") * extents[:, None]
        found = []
        for index, image in enumerate(images):
            clipped = clip_boxes_to_image(boxes[index], (image.shape[1], image.shape[2]))
            inside = (clipped[:, 2:] > clipped[:, :2]).all(1)  # the others are in the padding
            parts = {"boxes": clipped, "labels": labels[index] + 1, "scores": scores[index]}
            found.append({name: part[inside] for name, part in parts.items()})
        return found


def build_transformer(folder: Path, classes: list[str]) -> tuple[TransformerDetector, Inputs]:
    """A detector from a folder of transformers, with the inputs it expects; nothing is ever downloaded.

    Args:
        folder: With ``config.json``, and with ``model.safetensors`` where it is trained: these weights are then
            loaded, but for the layers of the classes where the data has another number of them.
        classes: Names of the classes.

    Raises:
        ValueError: The folder has no detector, or one whose weights do not fit or are no safetensors; or transformers
            or scipy, which its loss needs, is not installed.
    """
    config, stored = huggingface.config_of(folder, classes)
    try:
        import scipy.optimize  # type: ignore[import-untyped]  # noqa: F401
        from transformers import MODEL_FOR_OBJECT_DETECTION_MAPPING
    except ImportError:
        raise ValueError("hf: detectors come with transformers and scipy: pip install 'limbeck[hf]'") from None
    if type(config) not in MODEL_FOR_OBJECT_DETECTION_MAPPING:
        raise ValueError(
            f"{folder / 'config.json'} is of a {config.model_type}, which detects no objects; hf: takes DETR and its "
            "kind, such as detr, deformable_detr, rt_detr_v2 or d_fine"
        )
    _for_any_size(config)
    module = _loaded(folder, config, stored, classes) if huggingface.is_trained(folder) else _fresh(folder, config)
    mean, std = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)) if config.model_type in AS_IS else (IMAGENET_MEAN, IMAGENET_STD)
    inputs = huggingface.normalised_as_in(folder, Inputs(None, mean, std, MULTIPLE))
    return TransformerDetector(module.float(), inputs), inputs  # a configuration may ask for half precision


def _fresh(folder: Path, config: Any) -> nn.Module:
    from transformers import AutoModelForObjectDetection

    try:
        module: nn.Module = AutoModelForObjectDetection.from_config(config)  # type: ignore[no-untyped-call]
    except CANNOT_BE_BUILT as error:
        raise ValueError(f"the {config.model_type} of {folder} cannot be built: {error}") from None
    return module


def _loaded(folder: Path, config: Any, stored: dict[int, str], classes: list[str]) -> nn.Module:
    from transformers import AutoModelForObjectDetection

    huggingface.check_stored_classes(folder, stored, classes)
    try:
        module: nn.Module
        module, report = AutoModelForObjectDetection.from_pretrained(
            folder,
            config=config,
            ignore_mismatched_sizes=True,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except CANNOT_BE_BUILT as error:
        raise ValueError(f"the {config.model_type} of {folder} cannot be built: {error}") from None
    _check_loaded(folder, report, other_classes=len(stored) - len(classes))
    return module


def _for_any_size(config: Any) -> None:
    """Have anchors and positions made for the image at hand, and no weights of a backbone downloaded."""
    for one in (config, getattr(config, "backbone_config", None)):
        for name, value in (("anchor_image_size", None), ("eval_size", None), ("use_pretrained_backbone", False)):
            if getattr(one, name, None):
                setattr(one, name, value)


def _check_loaded(folder: Path, report: dict[str, Any], other_classes: int) -> None:
    """What transformers leaves fresh without a word is refused, but for layers of another number of classes."""
    wrong = [
        name
        for name, stored, own in report["mismatched_keys"]
        if not other_classes or stored[1:] != own[1:] or stored[0] - own[0] != other_classes
    ]
    if fresh := sorted({*report["missing_keys"], *wrong}):
        raise ValueError(
            f"the weights in {folder} do not fit its config.json: {len(fresh)} tensors are missing or of another "
            f"shape, such as {fresh[0]}; are they of this very model?"
        )


def _heeds_mask(model: nn.Module) -> bool:
    """Whether what is said to be padding changes the output: some take a mask and leave it."""
    whole = run_on_noise(model)
    if "pixel_mask" not in inspect.signature(model.forward).parameters:
        return False
    mask = torch.ones(1, *TRIED_AT, dtype=torch.int64, device=whole.logits.device)
    mask[:, :, TRIED_AT[1] // 2 :] = 0
    return not torch.equal(whole.logits, run_on_noise(model, pixel_mask=mask).logits)
