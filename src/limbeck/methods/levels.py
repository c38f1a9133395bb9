"""Which levels of two detectors' pyramids follow which."""

from __future__ import annotations

from collections.abc import Collection

from limbeck.models.model import Model


def common_strides(student: Model, teacher: Model, strides: Collection[int] = ()) -> list[int]:
    """Strides of the levels that both detectors' pyramids have, the finest first; of those named, if any are."""
    for model, role in ((student, "student"), (teacher, "teacher")):
        if missing := set(strides) - model.levels.keys():
            raise ValueError(f"the {role} has levels at the strides {sorted(model.levels)}, not at {sorted(missing)}")
    common = sorted(student.levels.keys() & teacher.levels.keys())
    if not common:
        raise ValueError(
            f"the student has levels at the strides {sorted(student.levels)}, the teacher at {sorted(teacher.levels)}: "
            "none in common; name what follows what with --student-layer and --teacher-layer"
        )
    return [stride for stride in common if not strides or stride in strides]
