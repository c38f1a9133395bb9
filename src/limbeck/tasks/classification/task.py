"""Image classification: cross entropy on the labelled images; top-1, top-5, and agreement with the teacher."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limbeck.core.modules import evaluating
from limbeck.data.inputs import Inputs, Preprocess
from limbeck.models.distilled import class_scores
from limbeck.tasks.classification.dataset import UNLABELLED
from limbeck.tasks.classification.transforms import Batch
from limbeck.training.by_class import ByClass, shares

SIGNIFICANT = 0.01  # probability of as good a teacher by chance, up to which it counts as better
MANY = 1000  # classes up to which it is counted which are taken for which


class Classification:
    """Classify images of ``classes``; student and teacher each get them at their own size and normalisation.

    Args:
        classes: Number of classes K.
        student, teacher: What each takes.
        label_smoothing: Of the cross entropy, in [0, 1).
        labelled_share: Share of the training images that have a label.
        class_weights: Of the cross entropy, (K).
    """

    metric = "top1"

    def __init__(
        self,
        classes: int,
        student: Inputs,
        teacher: Inputs | None = None,
        label_smoothing: float = 0.0,
        labelled_share: float = 1.0,
        class_weights: Tensor | None = None,
    ):
        self.classes, self.label_smoothing, self.labelled_share = classes, label_smoothing, labelled_share
        self.class_weights = class_weights
        self._for_student = Preprocess(student)
        self._for_teacher = Preprocess(teacher or student)
        self._has_teacher = teacher is not None
        self.by_class: ByClass | None = None  # of the last evaluation
        self.teacher_predictions: Tensor | None = None  # (N) class by index of the validation image

    def inputs(self, batch: Batch) -> tuple[Tensor]:
        return (self._for_student(batch["image"]),)

    def teacher_inputs(self, batch: Batch) -> tuple[Tensor] | None:
        return (self._for_teacher(batch["image"]),) if self._has_teacher else None

    def truth(self, batch: Batch) -> Tensor:
        return batch["label"]

    def loss(self, output: Tensor | tuple[Tensor, Tensor], batch: Batch) -> Tensor:
        """Cross entropy, summed over the labelled images of a batch, over how many of them a batch has on average.

        Not over how many this one has: so the number of processes and micro-batches makes no difference. Of a network
        with two heads it is the first one's.
        """
        scores, label = class_scores(output).float(), batch["label"]
        each = F.cross_entropy(
            scores,
            batch.get("target", label),
            None if self.class_weights is None else self.class_weights.to(scores.device),
            ignore_index=UNLABELLED,
            label_smoothing=self.label_smoothing,
            reduction="none",
        )
        total = (each * (label != UNLABELLED)).sum()  # shares of classes have no index to ignore
        return total / (self.labelled_share * len(label))

    def evaluate(self, model: nn.Module, loader: Iterable[Batch]) -> dict[str, float]:
        """Metrics, and the cross entropy, a mean over the images: without smoothed labels or weights of classes."""
        return self._measure(model, self._for_student, loader)[0]

    def evaluate_teacher(self, model: nn.Module, loader: Iterable[Batch]) -> dict[str, float]:
        metrics, self.teacher_predictions = self._measure(model, self._for_teacher, loader)
        return metrics

    def check_teacher(self, metrics: dict[str, float]) -> None:
        assert self.teacher_predictions is not None  # it was evaluated
        chance, images = 1 / self.classes, len(self.teacher_predictions)
        if tail(round(metrics["top1"] * images), images, chance) > SIGNIFICANT:
            raise ValueError(
                f"the teacher's top-1 is {metrics['top1']:.3f} on {images} images, chance is {chance:.3f}: check its "
                "weights, the order of the classes and its normalisation, or pass --no-teacher-check"
            )

    @torch.no_grad()
    def _measure(
        self, model: nn.Module, preprocess: Preprocess, loader: Iterable[Batch]
    ) -> tuple[dict[str, float], Tensor]:
        from torchmetrics import MeanMetric, MetricCollection  # takes seconds
        from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

        accuracy = {"top1": MulticlassAccuracy(self.classes, average="micro")}
        if self.classes > 5:
            accuracy["top5"] = MulticlassAccuracy(self.classes, top_k=5, average="micro")
        if self.teacher_predictions is not None:
            accuracy["agreement"] = MulticlassAccuracy(self.classes, average="micro")
        metrics = MetricCollection(dict(accuracy), compute_groups=False)
        confusion = MulticlassConfusionMatrix(self.classes) if self.classes <= MANY else None
        loss = MeanMetric(nan_strategy="disable")
        predicted: dict[int, int] = {}
        with evaluating(model):
            for batch in loader:
                output = model(preprocess(batch["image"])).float()
                metrics.to(output.device)
                classes = output.argmax(1)
                loss.to(output.device).update(F.cross_entropy(output, batch["label"], reduction="none"))
                predicted.update(zip(batch["index"].tolist(), classes.tolist(), strict=True))
                for name, metric in metrics.items():
                    target = batch["label"]
                    if name == "agreement":
                        assert self.teacher_predictions is not None
                        target = self.teacher_predictions.to(output.device)[batch["index"]]
                    metric.update(output, target)
                if confusion is not None:
                    confusion.to(output.device).update(classes, batch["label"])
        counts = None if confusion is None else confusion.compute()  # over all processes
        self.by_class = None if counts is None else ByClass("accuracy", shares(counts), counts)
        by_index = torch.zeros(max(predicted, default=-1) + 1, dtype=torch.int64)
        by_index[list(predicted)] = torch.tensor(list(predicted.values()), dtype=torch.int64)
        values = {**metrics.compute(), "loss": loss.compute()}
        return {name: values[name].item() for name in (*accuracy, "loss")}, by_index


def tail(right: int, images: int, chance: float) -> float:
    """The probability of so many right answers or more by chance: a binomial distribution's upper tail.

    >>> round(tail(8, 10, 0.5), 4)  # (45 + 10 + 1) / 1024
    0.0547
    """
    logarithms = [
        math.lgamma(images + 1) - math.lgamma(k + 1) - math.lgamma(images - k + 1)
        + k * math.log(chance) + (images - k) * math.log1p(-chance)
        for k in range(right, images + 1)
    ]  # fmt: skip
    return sum(map(math.exp, logarithms))
