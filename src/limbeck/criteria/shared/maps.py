"""What the criteria on feature maps share: tokens as maps, and which shapes go together."""

from __future__ import annotations

from torch import Tensor


def as_maps(criterion: object, student: Tensor, teacher: Tensor, *, channels: bool = True) -> tuple[Tensor, Tensor]:
    """Two maps (B, C, H, W), or tokens (B, N, D) as maps (B, D, N, 1); the teacher's detached.

    Args:
        criterion: Named in the error.
        student, teacher: The features.
        channels: Whether the numbers of channels must be equal.

    Raises:
        ValueError: They are neither maps nor tokens, or do not lie on one grid.
    """
    student, teacher = (f.transpose(1, 2).unsqueeze(-1) if f.ndim == 3 else f for f in (student, teacher))
    student_shape, teacher_shape = tuple(student.shape), tuple(teacher.shape)
    remedy = ""
    if len(student_shape) != 4 or len(teacher_shape) != 4:
        remedy = "it takes maps (B, C, H, W) or tokens (B, N, D)"
    elif student_shape[0] != teacher_shape[0] or student_shape[2:] != teacher_shape[2:]:
        remedy = "a Match brings maps to one grid; tokens need Layer(..., read=tokens_to_map(...))"
    elif channels and student_shape[1] != teacher_shape[1]:
        remedy = "for other channels pass projector=conv1x1"
    if remedy:
        raise ValueError(f"{type(criterion).__name__}: student {student_shape}, teacher {teacher_shape}; {remedy}")
    return student, teacher.detach()


def only_maps(criterion: object, *features: Tensor) -> None:
    """Refuse what has no neighbouring positions, for criteria that look at them."""
    for feature in features:
        if feature.ndim != 4:
            raise ValueError(
                f"{type(criterion).__name__} takes maps (B, C, H, W), not {tuple(feature.shape)}; "
                "read tokens as a map: Layer(..., read=tokens_to_map(...))"
            )
