"""What the criteria on class scores share: rows of logits, their labels, and the divergence of two distributions."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def rows(criterion: object, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (B, K), or (B, K, H, W) where every position is classified, as rows (n, K); the teacher's detached.

    Raises:
        ValueError: They are not scores of the same classes.
    """
    if student.shape != teacher.shape or student.ndim < 2:
        raise ValueError(
            f"{type(criterion).__name__} compares logits (B, K) of the same classes; student has "
            f"{tuple(student.shape)}, teacher {tuple(teacher.shape)}; give both models the same classes, or compare "
            "features instead, as ChannelTransform does"
        )
    return student.movedim(1, -1).flatten(0, -2), teacher.detach().movedim(1, -1).flatten(0, -2)


def labels_of(criterion: object, truth: Any, student: Tensor) -> tuple[Tensor, Tensor]:
    """The class of every row (n), and which rows have one (n); a negative class means there is none.

    Raises:
        ValueError: The truth is no class for each image (or position) of these logits.
    """
    fitting = isinstance(truth, Tensor) and not truth.is_floating_point() and truth.numel() == len(student)
    if not fitting:
        what = tuple(truth.shape) if isinstance(truth, Tensor) else type(truth).__name__
        raise ValueError(
            f"{type(criterion).__name__} needs the class of each of the {len(student)} rows of logits as truth, "
            f"integers (B) or (B, H, W), not {what}"
        )
    truth = truth.flatten()
    return truth.clamp(min=0), truth >= 0


def mean_where(values: Tensor, counted: Tensor) -> Tensor:
    """Mean of the values (n) that count (n); 0 where none does."""
    return (values * counted).sum() / counted.sum().clamp(min=1)


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """``temperature**2 * KL(softmax(teacher / temperature) || softmax(student / temperature))``, (..., K) to (...).

    The square keeps the gradient's size as the temperature changes.
    """
    log_student = F.log_softmax(student / temperature, dim=-1)
    log_teacher = F.log_softmax(teacher / temperature, dim=-1)
    return temperature**2 * F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(-1)


def standardised(logits: Tensor) -> Tensor:
    """Logits less their mean, over their standard deviation, for each row: https://arxiv.org/abs/2403.01427.

    Raises:
        ValueError: There are two classes, whose standardised logits are the same constants for every image.
    """
    if logits.shape[-1] < 3:
        raise ValueError(
            "standardised logits of two classes are 0.71 and -0.71, whatever they were, so a student learns nothing "
            "but the order from them; leave standardise out"
        )
    return (logits - logits.mean(-1, keepdim=True)) / (1e-7 + logits.std(-1, keepdim=True))


def without(logits: Tensor, labels: Tensor) -> Tensor:
    """Logits (n, K) in which the labels (n) have no probability left, while every number stays finite."""
    return logits.scatter(1, labels[:, None], -1000.0)


def at(values: Tensor, labels: Tensor) -> Tensor:
    """Of values (n, K) those of the labels (n)."""
    return values.gather(1, labels[:, None]).squeeze(1)


def check_batch(criterion: object, size: int, least: int) -> None:
    """Refuse a batch in which there is nothing to relate."""
    if size < least and not torch.compiler.is_compiling():
        raise ValueError(
            f"{type(criterion).__name__} relates the images of a batch to each other and needs {least} or more; "
            f"this batch has {size}; where that is the last one of an epoch, pass drop_last=True to the DataLoader"
        )
