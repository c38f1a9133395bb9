"""How a run ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Report:
    """How a run ended."""

    run: Path
    finished: bool = False  # False: interrupted, to be resumed
    status: int = 0  # that a process is to end with; 128 and the number of the signal that interrupted the run
    best: dict[str, float] = field(default_factory=dict)  # metrics of student.safetensors
    last: dict[str, float] = field(default_factory=dict)  # metrics of student-last.safetensors
    teacher: dict[str, float] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)  # of the matches
