"""What a run writes down beside its log: matches, the teacher's metrics, features, and what is found class by class."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from safetensors import SafetensorError

from limbeck.core.distiller import Distiller
from limbeck.models.run_folder import RunFolder
from limbeck.training.build import Built
from limbeck.training.checkpoint import write_atomically
from limbeck.training.display import Display
from limbeck.training.feature_record import IMAGES, record_after, record_before
from limbeck.training.loaders import Loaders
from limbeck.training.record import log
from limbeck.training.task import Task


class Findings:
    """Writes what a page about a run needs, and no step depends on; on the first process alone."""

    def __init__(self, folder: RunFolder, built: Built, task: Task, loaders: Loaders, display: Display):
        self.folder, self.built, self.task, self.loaders, self.display = folder, built, task, loaders, display
        self.names = loaders.recipe.card.get("classes")

    def at_start(self) -> None:
        """Write down what was found out before the first step."""
        folder, built = self.folder, self.built
        if built.matches:
            write_atomically(folder.matches, json.dumps(list(map(asdict, built.matches)), indent=1).encode())
        if built.teacher:
            log(folder.log, "teacher", 0, 0, built.teacher)
        self.by_class("teacher", 0, 0, built.teacher_classes)
        if isinstance(built.trained, Distiller):
            with self._telling("features of validation images are not recorded"):
                record_before(folder.features, built.trained, self.task, self.loaders.some_validation(IMAGES))

    def by_class(self, kind: str, step: int, epoch: int, found: Mapping[str, Any] | None) -> None:
        if found is not None:
            log(self.folder.classes, kind, step, epoch, {"names": self.names, **found})

    def at_end(self) -> None:
        """Write down what is gone when the projectors are."""
        trained = self.built.trained
        if isinstance(trained, Distiller) and self.folder.features.is_file():
            with self._telling(f"features after the training are not added to {self.folder.features}"):
                record_after(self.folder.features, trained, self.task, self.loaders.some_validation(IMAGES))

    @contextmanager
    def _telling(self, missing: str) -> Iterator[None]:
        """Say what is missing where it fails: a task of the user's own may take training batches only."""
        try:
            yield
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError, SafetensorError) as error:
            self.display.say(f"{missing}: {type(error).__name__}: {error}")
