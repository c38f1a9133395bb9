"""``limbeck evaluate``: the students of runs beside their teacher, in numbers and in pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import tyro
from accelerate.utils import send_to_device
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from limbeck.models.build import Inputs, build_model
from limbeck.models.checkpoints import load_weights
from limbeck.models.run_folder import RunFolder
from limbeck.tasks.classification.dataset import Images
from limbeck.tasks.classification.load import load_images
from limbeck.tasks.classification.task import Classification
from limbeck.tasks.classification.transforms import ValImages
from limbeck.tasks.detection.checkpoints import load_detector
from limbeck.tasks.detection.dataset import load_coco
from limbeck.tasks.detection.models import build_detector, gives_masks
from limbeck.tasks.detection.task import Detection
from limbeck.tasks.detection.transforms import ValObjects, collate
from limbeck.tasks.pictures import Models, sheets_of_masks, sheets_of_objects, write_pictures
from limbeck.tasks.semantic.dataset import Masks
from limbeck.tasks.semantic.load import load_masks
from limbeck.tasks.semantic.models import build_segmenter
from limbeck.tasks.semantic.task import Semantic
from limbeck.tasks.semantic.transforms import ValMasks
from limbeck.training.display import wide_console

MANY = 8  # metrics that are still columns of the table


def evaluate(arguments: list[str]) -> None:
    """The students of runs beside the teacher of the first."""
    tyro.cli(_evaluate, args=arguments, prog="limbeck evaluate")


def _evaluate(
    runs: tyro.conf.Positional[list[Path]],
    /,
    data: str | None = None,
    batch_size: int | None = None,
    pictures: int = 0,
    score: float = 0.3,
) -> None:
    """Evaluate the students of runs, and the teacher that the first of them had, on validation images.

    Args:
        runs: Run folders: a distilled student, and those it is to be compared with, such as the student alone.
        data: As for limbeck train; by default the data of the first run.
        batch_size: Images at a time: 128 with labels, 8 with masks or boxes, 1 with masks of several sizes.
        pictures: Draw this many validation images into the first run's pictures/: image, truth, the students from the
            last run named to the first, and the teacher (of segmenters and detectors only).
        score: Draw the objects that a detector is at least so sure of.
    """
    folders = [RunFolder(run) for run in runs]
    if not folders or not (folders[0].record.is_file() or folders[0].has_student()):
        raise ValueError(f"{runs[0] if runs else 'limbeck evaluate'}: name the folder of a run")
    if pictures < 0:
        raise ValueError(f"pictures is {pictures}; it must be 0 or more")
    for run in folders:
        if not run.has_student():
            raise ValueError(f"{run} has no student yet; go on with: limbeck distill {run} --resume")
    card = folders[0].card()
    given = folders[0].read_record()["arguments"] if folders[0].record.is_file() else {}  # else Python made it
    own = given.get("data")
    data = data or (own["data"] if isinstance(own, dict) else own)
    if data is None:
        raise ValueError(f"{runs[0]} was made by a recipe that does not say where its data lie; pass --data")
    if pictures and card["task"] == "classification":
        raise ValueError("--pictures shows masks and boxes, which an image classifier does not give")
    if not 0 <= score <= 1:
        raise ValueError(f"score is {score}; it is a share, from 0 to 1")
    validation = VALIDATIONS[card["task"]](data, card, batch_size)
    rows: dict[str, dict[str, float]] = {}
    if teacher := given.get("teacher"):
        rows[f"teacher {teacher}"] = validation.measure_teacher(
            teacher, given.get("teacher_weights"), given.get("teacher_size")
        )
    for run in folders:
        rows[str(run)] = validation.measure(run)
    _print(f"validation images of {data}: {len(validation)}", rows)
    if not isinstance(validation, OfImages) and pictures:
        folder = runs[0] / "pictures"
        titles = ", ".join(validation.draw(pictures, folder, score))
        print(f"pictures: {folder}, each of image, truth, {titles}; the colours are in classes.png")


class OfImages:
    """Validation images with labels, and what the teacher says of them."""

    def __init__(self, data: str, card: dict[str, Any], batch_size: int | None):
        self.batch_size = batch_size or 128
        self.teacher_says: Tensor | None = None
        self.images: Images = load_images(data, on_bad=card.get("on_bad_data", "error"), seed=card["data_seed"])[1]

    def __len__(self) -> int:
        return len(self.images)

    def measure_teacher(self, name: str, weights: str | None, size: int | None) -> dict[str, float]:
        model, inputs = build_model(name, self.images.classes, size)
        if weights is not None:
            load_weights(model, weights, name=name)
        run = RunFolder(Path(name))  # is measured as it was trained
        load_size = run.card()["load_size"] if run.has_student() else min(inputs.size, *self.images.typical_size())
        return self._measure(model, inputs, load_size, teacher=True)

    def measure(self, run: RunFolder) -> dict[str, float]:
        model, inputs = build_model(str(run), self.images.classes)
        return self._measure(model, inputs, run.card()["load_size"])

    def _measure(self, model: nn.Module, inputs: Inputs, load_size: int, *, teacher: bool = False) -> dict[str, float]:
        task = Classification(len(self.images.classes), inputs)
        batches = _batches(_on_device(model), ValImages(self.images, load_size), self.batch_size)
        if teacher:
            metrics, self.teacher_says = task.evaluate_teacher(model, batches), task.teacher_says
            return metrics
        task.teacher_says = self.teacher_says
        return task.evaluate(model, batches)


class OfMasks:
    """Validation images with masks, and the models that were measured on them."""

    def __init__(self, data: str, card: dict[str, Any], batch_size: int | None):
        self.masks: Masks = load_masks(
            Path(data),
            ignore_index=card["ignore_index"],
            on_bad=card.get("on_bad_data", "error"),
            seed=card["data_seed"],
        )[1]
        self.batch_size = (batch_size or 8) if len(self.masks.sizes) == 1 else 1
        self.seen = ValMasks(self.masks, card["short_side"])
        self.models: dict[str, tuple[nn.Module, Inputs]] = {}  # the teacher first

    def __len__(self) -> int:
        return len(self.masks)

    def measure_teacher(self, name: str, weights: str | None, size: int | None) -> dict[str, float]:
        return self._measure(f"teacher {name}", name, weights)

    def measure(self, run: RunFolder) -> dict[str, float]:
        return self._measure(str(run), str(run))

    def _measure(self, title: str, name: str, weights: str | None = None) -> dict[str, float]:
        model, inputs = build_segmenter(name, self.masks.classes)
        if weights is not None:
            load_weights(model, weights, name=name)
        self.models[title] = _on_device(model), inputs
        batches = _batches(model, self.seen, self.batch_size)
        return Semantic(self.masks.classes, inputs).evaluate(model, batches)

    def draw(self, count: int, folder: Path, score: float) -> Models:
        models = dict(reversed(self.models.items()))
        write_pictures(sheets_of_masks(self.masks, self.seen, models, count), self.masks.classes, folder)
        return models


class OfObjects:
    """Validation images with objects, and the models that were measured on them."""

    def __init__(self, data: str, card: dict[str, Any], batch_size: int | None):
        self.batch_size, self.with_masks = batch_size or 8, card["task"] == "instance"
        self.objects = load_coco(Path(data), on_bad=card["on_bad_data"], outlines=self.with_masks)[1]
        self.seen = ValObjects(self.objects, card["short_side"], card["long_side"])
        self.models: dict[str, tuple[nn.Module, Inputs]] = {}  # the teacher first

    def __len__(self) -> int:
        return len(self.objects)

    def measure_teacher(self, name: str, weights: str | None, size: int | None) -> dict[str, float]:
        return self._measure(f"teacher {name}", name, weights)

    def measure(self, run: RunFolder) -> dict[str, float]:
        return self._measure(str(run), str(run))

    def _measure(self, title: str, name: str, weights: str | None = None) -> dict[str, float]:
        model, inputs = build_detector(name, self.objects.classes)
        if weights is not None:
            load_detector(model, weights, name=name, classes=self.objects.classes)
        self.models[title] = _on_device(model), inputs
        task = Detection(self.objects, masks=self.with_masks and gives_masks(model))
        return task.evaluate(model, _batches(model, self.seen, self.batch_size, collate))

    def draw(self, count: int, folder: Path, score: float) -> Models:
        models = dict(reversed(self.models.items()))
        sheets = sheets_of_objects(self.objects, self.seen, models, count, score)
        write_pictures(sheets, self.objects.classes, folder)
        return models


VALIDATIONS: dict[str, Callable[..., OfImages | OfMasks | OfObjects]] = {
    "classification": OfImages,
    "semantic": OfMasks,
    "detection": OfObjects,
    "instance": OfObjects,
}


def _on_device(model: nn.Module) -> nn.Module:
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def _batches(model: nn.Module, data: Dataset[Any], size: int, collate: Any = None) -> Iterator[Any]:
    device = next(model.parameters()).device
    return (send_to_device(batch, device) for batch in DataLoader(data, size, collate_fn=collate))


def _print(title: str, rows: dict[str, dict[str, float]]) -> None:
    columns = list(dict.fromkeys(name for metrics in rows.values() for name in metrics))
    table = Table(title=title, title_justify="left")
    shown = {name: {label: metrics[name] for label, metrics in rows.items() if name in metrics} for name in columns}
    head, first, cells = ("", list(rows), shown) if len(columns) > MANY else ("model", columns, rows)
    for column in (head, *first):
        table.add_column(column, overflow="fold")
    for label, values in cells.items():
        table.add_row(label, *(f"{values[name]:.4f}" if name in values else "" for name in first))
    wide_console().print(table)
