"""The folder of a run: what lies in it, and under which names."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

MARK = "<!-- written by limbeck; a card without this line is left as it is -->"


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps what it writes."""

    path: Path

    @property
    def record(self) -> Path:
        """Every argument, versions, hashes: written by a command, not by a run that Python started."""
        return self.path / "recipe.json"

    @property
    def log(self) -> Path:
        """Losses, weights, rates and metrics, a JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def classes(self) -> Path:
        """What the evaluations found class by class, a JSON object a line."""
        return self.path / "classes.jsonl"

    @property
    def matches(self) -> Path:
        """The matches, as the preflight before the first step found them."""
        return self.path / "matches.json"

    @property
    def features(self) -> Path:
        """What teacher and student make of some validation images, before and after the training."""
        return self.path / "features.safetensors"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def student(self) -> Path:
        """Tensors and card of the student that was the best so far."""
        return self.path / "student.safetensors"

    @property
    def last_student(self) -> Path:
        """Of the student as it was at the end, so only there once the run is finished."""
        return self.path / "student-last.safetensors"

    @property
    def console(self) -> Path:
        """The lines that the run showed."""
        return self.path / "console.log"

    @property
    def lock(self) -> Path:
        """Held by the process that writes into the folder."""
        return self.path / ".lock"

    @property
    def first_batch(self) -> Path:
        """The first images of the training, as the student saw them, with their truth: wrong annotations are seen."""
        return self.path / "first-batch.png"

    @property
    def readme(self) -> Path:
        """What the student is, as the Hugging Face hub takes a model's card; maybe somebody else's."""
        return self.path / "README.md"

    def has_readme_of_others(self) -> bool:
        """Whether there is a card that no run wrote."""
        return self.readme.is_file() and MARK.encode() not in self.readme.read_bytes()

    def has_student(self) -> bool:
        return self.student.is_file()

    def has_run(self) -> bool:
        """Whether there is something that a new run would destroy: a checkpoint, or a student."""
        return self.has_student() or any(self.checkpoints.glob("*.ckpt"))

    def is_finished(self) -> bool:
        return self.last_student.is_file()

    def student_of(self, which: Literal["best", "last"]) -> Path:
        """The student that was the best, or as it was at the end.

        Raises:
            ValueError: There is no end yet.
        """
        if which == "last" and not self.is_finished():
            raise ValueError(f"{self} is not finished, so it has no last student; leave out --weights last")
        return self.last_student if which == "last" else self.student

    def occupied(self) -> ValueError:
        """What is said to a new run where there is one already."""
        return ValueError(f"{self} holds a run already; go on with --resume, --overwrite it, or choose another --out")

    def going_on(self) -> str:
        """What goes on with the run: the command that made it, or in Python the call."""
        command = self.read_record().get("command") if self.record.is_file() else None
        if command is None:
            return "the same call with RunOptions(resume=True)"
        return f"limbeck {command} {shlex.quote(str(self))} --resume"

    def clear(self) -> None:
        """Remove what a run wrote, and nothing else."""
        written = (self.record, self.log, self.classes, self.matches, self.features, self.console, self.first_batch)
        card = () if self.has_readme_of_others() else (self.readme,)
        for path in (*written, *card, self.student, self.last_student, *self.checkpoints.glob("*")):
            path.unlink(missing_ok=True)

    def card(self) -> dict[str, Any]:
        """What the run wrote about its best student."""
        return read_card(self.student)

    def read_record(self) -> dict[str, Any]:
        """What the command that made the run wrote down.

        Raises:
            ValueError: No command made this run, or the file is damaged.
        """
        if not self.record.is_file():
            raise ValueError(f"{self.path} is no run that a command made: it has no {self.record.name}")
        try:
            return _object(self.record.read_text())
        except ValueError as error:
            raise ValueError(
                f"{self.record} is damaged ({error}); the arguments of this run are lost, so start it again in another "
                "folder"
            ) from None

    def __str__(self) -> str:
        return str(self.path)


def read_card(path: Path) -> dict[str, Any]:
    """What a run wrote about a student in its file: name, classes, and the inputs it expects."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if "limbeck" not in metadata:
        raise ValueError(f"{path} was not written by a run of limbeck")
    try:
        return _object(metadata["limbeck"])
    except ValueError as error:
        raise ValueError(f"the card in {path} is damaged: {error}") from None


def _object(text: str) -> dict[str, Any]:
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError(f"it holds no object but: {type(content).__name__}")
    return content
