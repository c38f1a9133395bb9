"""Semantic segmentation: cross entropy on the labelled pixels; mean intersection over union at the masks' own size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.core.modules import device_of, evaluating
from limbeck.data.inputs import Inputs, normalised
from limbeck.tasks.semantic.classes import IGNORED
from limbeck.tasks.semantic.places import at_size, logits_at, logits_of
from limbeck.tasks.semantic.transforms import Batch
from limbeck.training.by_class import ByClass


class Semantic:
    """Give every pixel one of ``classes``; student and teacher see the same pixels, each with its own normalisation.

    Args:
        classes: Their names, in the order of the outputs.
        student, teacher: The normalisation that each wants, and the multiple of pixels that its images are padded to.
        auxiliary: Weight of an auxiliary head's loss, where the student has one.
        dice: Weight of the Dice loss beside the cross entropy.
        class_weights: Of the cross entropy, (K).
    """

    metric = "miou"

    def __init__(
        self,
        classes: Sequence[str],
        student: Inputs,
        teacher: Inputs | None = None,
        *,
        auxiliary: float = 0.4,
        dice: float = 0.0,
        class_weights: Tensor | None = None,
    ):
        self.classes, self.auxiliary, self.dice, self.class_weights = list(classes), auxiliary, dice, class_weights
        self.student, self.teacher = student, teacher
        self.by_class: ByClass | None = None  # of the last evaluation

    def inputs(self, batch: Batch) -> tuple[Tensor]:
        return (padded(batch["image"], self.student),)

    def teacher_inputs(self, batch: Batch) -> tuple[Tensor] | None:
        return None if self.teacher is None else (padded(batch["image"], self.teacher),)

    def truth(self, batch: Batch) -> Tensor:
        return torch.where(batch["mask"] == IGNORED, -1, batch["mask"])

    def loss(self, output: Any, batch: Batch) -> Tensor:
        """Cross entropy, with the Dice loss and the auxiliary head's if wanted.

        A mean over the labelled pixels of this very batch, as is usual: where micro-batches or processes have other
        numbers of them, each counts alike.
        """
        total = self._loss(logits_of(output), batch["mask"])
        if isinstance(output, Mapping) and "aux" in output and self.auxiliary:
            total = total + self.auxiliary * self._loss(output["aux"], batch["mask"])
        return total

    def _loss(self, logits: Tensor, mask: Tensor) -> Tensor:
        logits = at_size(logits.float(), mask.shape[-2:])
        weights = logits.new_ones(len(self.classes)) if self.class_weights is None else self.class_weights.to(logits)
        total = F.cross_entropy(logits, mask, weights, ignore_index=IGNORED, reduction="sum")
        # Not reduction="mean", which is nan for a batch without any labelled pixel.
        loss = total / weights[mask[mask != IGNORED]].sum().clamp(min=1e-6)
        return loss + self.dice * dice_loss(logits, mask) if self.dice else loss

    def evaluate(self, model: nn.Module, loader: Iterable[Batch]) -> dict[str, float]:
        """Metrics, and the cross entropy, a mean over all labelled pixels: no weights of classes, no Dice loss."""
        return self._measure(model, self.student, loader)

    def evaluate_teacher(self, model: nn.Module, loader: Iterable[Batch]) -> dict[str, float]:
        return self._measure(model, self.teacher or self.student, loader)

    def check_teacher(self, metrics: dict[str, float]) -> None:
        # One class everywhere has at most 1 in its own intersection over union, and 0 in all others.
        chance = 1 / len(self.classes)
        if metrics["miou"] < chance:
            raise ValueError(
                f"the teacher's mIoU is {metrics['miou']:.3f}, less than one class everywhere could have "
                f"({chance:.3f}): check its weights, the order of the classes and its normalisation, or pass "
                "--no-teacher-check"
            )

    @torch.no_grad()
    def _measure(self, model: nn.Module, inputs: Inputs, loader: Iterable[Batch]) -> dict[str, float]:
        from torchmetrics import SumMetric  # takes seconds
        from torchmetrics.classification import MulticlassConfusionMatrix

        metric = MulticlassConfusionMatrix(len(self.classes), ignore_index=IGNORED).to(device_of(model))
        loss = SumMetric(nan_strategy="disable").to(device_of(model))
        with evaluating(model):
            for batch in loader:
                mask = batch["mask"]
                scores = scores_of(model, batch["image"], inputs, mask.shape[-2:])
                metric.update(scores.argmax(1), mask)
                loss.update(F.cross_entropy(scores, mask, ignore_index=IGNORED, reduction="sum"))
        counts = metric.compute()  # over all processes
        confusion = counts.double()
        both = confusion.diagonal()
        either = confusion.sum(0) + confusion.sum(1) - both
        present = either > 0  # a class that is neither there nor predicted counts for nothing
        by_class = both / either
        values = [by_class[i].item() if present[i] else None for i in range(len(present))]
        self.by_class = ByClass("iou", values, counts)
        named = {f"iou {name}": value for name, value in zip(self.classes, values, strict=True) if value is not None}
        accuracy = (both.sum() / confusion.sum()).item()
        mean, cross_entropy = by_class[present].mean().item(), (loss.compute() / confusion.sum()).item()
        return {"miou": mean, "pixel_accuracy": accuracy, "loss": cross_entropy, **named}


def predict(model: nn.Module, images: Tensor, inputs: Inputs, size: Sequence[int]) -> Tensor:
    """Classes (B, H, W) at a size, of images (B, 3, h, w) uint8, padded to the multiple that the model wants."""
    return scores_of(model, images, inputs, size).argmax(1)


def scores_of(model: nn.Module, images: Tensor, inputs: Inputs, size: Sequence[int]) -> Tensor:
    """Logits (B, K, H, W) at a size, of such images."""
    height, width = images.shape[-2:]
    pixels = padded(images, inputs)
    logits = logits_at(model(pixels), pixels.shape[-2:]).float()[..., :height, :width]
    return at_size(logits, size)


def padded(images: Tensor, inputs: Inputs) -> Tensor:
    """Images (B, 3, h, w) uint8 as a model takes them, with zeros below and to the right up to its multiple."""
    height, width = images.shape[-2:]
    missing = (0, -width % inputs.multiple, 0, -height % inputs.multiple)
    pixels = normalised(images, inputs)
    return F.pad(pixels, missing) if any(missing) else pixels


def dice_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """One minus the Dice coefficient of probabilities and labels, a mean over the classes."""
    from segmentation_models_pytorch.losses import DiceLoss

    loss: Tensor = DiceLoss("multiclass", ignore_index=IGNORED)(logits, mask)
    return loss
