"""Where there is too little to learn from: a line of advice each, before a run or while it goes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from limbeck.core.criterion import Feature

FARTHEST = 8  # times one grid may have the height or width of the other
FAINTEST = 1e-7  # relative change of the loss by a relative change of a student's weight


def advise_on_grids(student: Feature, teacher: Feature) -> tuple[str, ...]:
    """Advice on maps (B, C, H, W) that say little of where things are; none on tokens, vectors and tuples of maps."""
    if not (isinstance(student, Tensor) and isinstance(teacher, Tensor) and student.ndim == teacher.ndim == 4):
        return ()
    (height, width), (rows, columns) = student.shape[2:], teacher.shape[2:]
    if rows * columns == 1 < height * width:
        return (
            "the teacher's map has one position, so nothing is learnt of where things are: larger images "
            "(--teacher-size) or an earlier layer (--teacher-layer) give more",
        )
    times = max(height / rows, rows / height, width / columns, columns / width)
    if times > FARTHEST:
        return (
            f"the student's map of {height}x{width} is resized to {rows}x{columns}, more than {FARTHEST} times: layers "
            "of nearer sizes (--student-layer, --teacher-layer) have more in common",
        )
    return ()


def advise_on_gradients(student: nn.Module, loss: Tensor) -> tuple[str, ...]:
    """Advice after a backward pass, where hardly anything of it has come to the student's weights."""
    trained = [p for p in student.parameters() if p.requires_grad and p.grad is not None and p.ndim > 1]
    if not trained:
        return ()
    moves = torch.stack([p.detach().norm() * p.grad.norm() for p in trained if p.grad is not None])
    if (moves / loss.detach().abs()).median() > FAINTEST:
        return ()
    return (
        "the loss hardly reaches the student's weights, half of which have no gradient to speak of: it may have too "
        "many layers without a norm or a skip, or lie behind activations that are 0 everywhere",
    )


def advise_on_teacher(student: Mapping[str, float], teacher: Mapping[str, float], metric: str) -> str:
    """Advice after an evaluation, where the student has overtaken its teacher; empty where it has not."""
    if metric not in teacher or student[metric] <= teacher[metric]:
        return ""
    return (
        f"the student is ahead of its teacher ({metric} {student[metric]:.4f} and {teacher[metric]:.4f}), which may "
        "hold it back from here on: a better teacher, or --weight EarlyDecay:weight=1, may help more"
    )
