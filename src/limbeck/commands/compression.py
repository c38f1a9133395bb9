"""One run of ``limbeck compress``, from the model to its folder."""

from __future__ import annotations

import dataclasses
import inspect
import json
from typing import Any, Generic, TypeVar

from rich.console import Console
from torch import nn

from limbeck.commands.arguments import Arguments
from limbeck.commands.compress_tables import costs_of, print_costs, print_layers
from limbeck.commands.record import circumstances, resumed
from limbeck.commands.words import absolute_words
from limbeck.data.workers import USUAL_WORKERS
from limbeck.methods.pairing import used_in
from limbeck.models.build import RUN, source_of, student_file
from limbeck.models.run_folder import RunFolder, read_card
from limbeck.tasks.kind import TaskKind
from limbeck.tasks.options import MatchOptions, TeacherOptions
from limbeck.training.checkpoint import write_atomically
from limbeck.training.compression import (
    CompressOptions,
    Places,
    Shared,
    close,
    finish,
    learn_in_slices,
    load,
    rows_of,
    write_loader,
)
from limbeck.training.devices import make_accelerator
from limbeck.training.display import Display, show
from limbeck.training.layout import lay_out
from limbeck.training.loaders import Loaders, telling_of_workers
from limbeck.training.lock import held
from limbeck.training.loop import train as train_recipe
from limbeck.training.ranges import check_ranges
from limbeck.training.recipe import Budget, Recipe
from limbeck.training.record import save_student
from limbeck.training.signals import StopRequest

USES = ("slice-wise", "Tucker-2")  # to be cited
OfData = TypeVar("OfData")  # the data of a kind of task


@dataclasses.dataclass(frozen=True)
class Options(Generic[OfData]):
    """Make a trained model smaller, slice by slice.

    Args:
        data: Images.
        weights: A .safetensors or .pth file for the model, or "pretrained"; a run folder brings its own.
        size: Image size in pixels, of a classifier; its own by default.
        compress: How much smaller, and how.
        matching: What --global-epochs follow beside the labels; by default KD for classifiers.
        batch_size: Images per optimizer step.
        learning_rate: Highest learning rate of --global-epochs; by default what is usual for trained weights.
        workers: Loader processes, by default 2, or 1 on a single core; their number does not change the result.
        checkpoint_every: Steps between checkpoints.
        seed: Random seed of the order and augmentation of the images.
    """

    data: OfData
    weights: str | None = None
    size: int | None = None
    compress: CompressOptions = dataclasses.field(default_factory=CompressOptions)
    matching: MatchOptions = MatchOptions()
    batch_size: int = 64
    learning_rate: float | None = None
    workers: int = USUAL_WORKERS
    checkpoint_every: int = 500
    seed: int = 0


class Compression:
    """One run of the command.

    Args:
        kind: Of the task.
        model: By its name.
        words: Options as they were typed.
        parsed: And as they were understood.
        shared: With runs of other ratios.
    """

    def __init__(self, kind: TaskKind, model: str, words: list[str], parsed: Arguments[Options[Any]], shared: Shared):
        self.shared = shared
        self.kind, self.model, self.given = kind, model, parsed.recipe
        self.options = parsed.recipe.compress
        self.run_options = parsed.run
        check_ranges(vars(parsed))
        self.folder = RunFolder(parsed.out)
        self.places = Places(self.folder)
        self.record = self._record(words)

    def run(self) -> None:
        """Do what is left to do."""
        overwrites = self.run_options.overwrite
        if (self.folder.has_run() or self.places.has_any()) and not (self.run_options.resume or overwrites):
            raise self.folder.occupied()
        notes: list[str] = []
        if self.folder.record.is_file() and not overwrites:
            self.record, notes = resumed(self.folder, self.record)
        recipe = self._recipe()
        status = self._slices(dataclasses.replace(recipe, notes=[*notes, *recipe.notes]))
        if not status and self.options.global_epochs and not self.run_options.dry_run:
            status = self._global(recipe)
        if status and not self.run_options.zero_when_stopped:
            raise SystemExit(status)

    def _record(self, words: list[str]) -> dict[str, Any]:
        plain = {
            key: vars(value) if dataclasses.is_dataclass(value) else value for key, value in vars(self.given).items()
        }
        weights, size = plain.pop("weights"), plain.pop("size")
        plain |= {"teacher": self.model, "teacher_weights": weights, "teacher_size": size}
        record = {"command": "compress", "recipe": self.kind.name, "argv": absolute_words(words), "arguments": plain}
        return {**record, **circumstances(plain), "uses": list(USES)}

    def _recipe(self) -> Recipe:
        """The model as it is, with its data: its training images without the teacher."""
        given = self.given
        sized = {"size": given.size} if "size" in inspect.signature(self.kind.train).parameters else {}
        if given.size is not None and not sized:
            raise ValueError(f"--size is for classifiers; models of {self.kind.name} take images as they are")
        budget = Budget(
            epochs=max(1, self.options.slice_epochs),
            batch_size=given.batch_size,
            workers=given.workers,
            checkpoint_every=given.checkpoint_every,
            seed=given.seed,
        )
        recipe = self.kind.train(given.data, self.model, weights=given.weights, budget=budget, **sized)
        card = recipe.card
        if source_of(self.model)[0] == RUN:  # which need not stay where it is
            before = read_card(student_file(self.model))
            card = {**card, "model": before["model"], "compressed": before.get("compressed", {})}
        elif given.weights is None:
            raise ValueError(f"{self.model} has no trained weights: pass --weights, or the folder of a run as MODEL")
        return dataclasses.replace(recipe, card=card)

    def _slices(self, recipe: Recipe) -> int:
        """Closed forms and slices; the status to end with."""
        folder, places, options = self.folder, self.places, self.options
        accelerator = make_accelerator(recipe.budget, folder.path, self.run_options)
        recipe.student.to(accelerator.device).eval()
        with Display() as display, held(folder, display.say), telling_of_workers():
            for note in recipe.notes:
                display.say(note)
            if left_as_it_was := lay_out(recipe.student, accelerator.device):
                display.say(left_as_it_was)
            if folder.is_finished() and not self.run_options.overwrite:
                display.say(f"{folder} is finished already")
                return 0
            loaders = Loaders(recipe, accelerator, display)
            before = recipe.task.evaluate_teacher(recipe.student, loaders.validation("measuring the original"))
            display.say(f"original: {show(before, recipe.task.metric)}")
            if self.options.teacher_check:
                recipe.task.check_teacher(before)
            compressed, card = self._closed(recipe, loaders, display)
            self._tell("closed form", recipe, compressed, loaders, display)
            if self.run_options.dry_run:
                display.say("dry run: the slices would be trained now; nothing was written")
                return 0
            if places.sliced.is_file():
                compressed = load(recipe.student, places.sliced)
            elif options.slice_epochs:
                with StopRequest(accelerator, self.run_options.max_hours).watch() as stop:
                    status = learn_in_slices(recipe, compressed, card, options, loaders, places, display, stop)
                if status:
                    display.say(f"stopped; go on with: {folder.going_on()}")
                    return status
            after = self._tell("after slices", recipe, compressed, loaders, display)
            write_loader(places)
            if not options.global_epochs:
                finish(folder, compressed, {**card, "metrics": after})
                self._tell_costs(recipe, compressed, [before, after], display.console)
                display.say(f"student: {folder.student}")
            return 0

    def _closed(self, recipe: Recipe, loaders: Loaders, display: Display) -> tuple[nn.Module, dict[str, Any]]:
        """The model in closed form with its card, found in the run folder or made; then the folder is taken."""
        folder, places, overwrites = self.folder, self.places, self.run_options.overwrite
        if places.start.is_file() and not overwrites:
            compressed, card = load(recipe.student, places.start), read_card(places.start)
        else:
            compressed, card = close(recipe, self.options, loaders, self.shared, display.say)
        print_layers(rows_of(card), card["whole"], display.console)
        if not self.run_options.dry_run:
            if overwrites:
                folder.clear()
                places.clear()
            write_atomically(folder.record, json.dumps(self.record, indent=1, default=str).encode())
            save_student(compressed, places.start, card)
            compressed = load(recipe.student, places.start)  # as a resumed run has it, bit by bit
            display.record_to(folder.console)
        return compressed, card

    def _tell(
        self, what: str, recipe: Recipe, model: nn.Module, loaders: Loaders, display: Display
    ) -> dict[str, float]:
        metrics = recipe.task.evaluate(model, loaders.validation("evaluating"))
        display.say(f"{what}: {show(metrics, recipe.task.metric)}")
        return metrics

    def _tell_costs(
        self,
        recipe: Recipe,
        compressed: nn.Module,
        metrics: list[dict[str, float]],
        console: Console | None = None,
    ) -> None:
        rows = costs_of(recipe, {"original": recipe.student, "compressed": compressed}, metrics)
        write_atomically(self.places.costs, json.dumps(rows, indent=1).encode())
        print_costs(rows, console)

    def _global(self, sliced: Recipe) -> int:
        """Ordinary distillation of the compressed model, with the original as its teacher."""
        given, places, folder = self.given, self.places, self.folder
        file = places.sliced if places.sliced.is_file() else places.start
        matching = given.matching
        matching = dataclasses.replace(matching, method=matching.method or self.kind.compress_method)
        sized = {"size": given.size, "teacher_size": given.size} if given.size is not None else {}
        budget = dataclasses.replace(
            sliced.budget, epochs=self.options.global_epochs, learning_rate=given.learning_rate
        )
        recipe = self.kind.distill(
            given.data,
            teacher=self.model,
            student=self.model,
            matching=matching,
            teacher_options=TeacherOptions(teacher_weights=given.weights, teacher_check=self.options.teacher_check),
            budget=budget,
            **sized,
        )
        card = read_card(file)
        student = load(recipe.student, file)
        names = {name for name, _ in student.named_parameters()}
        recipe = dataclasses.replace(recipe, student=student, loaded=names, card=card)
        record = {**self.record, "uses": sorted({*USES, *used_in(recipe.matches)})}
        options = dataclasses.replace(self.run_options, resume=folder.has_run(), overwrite=False)
        report = train_recipe(recipe, folder.path, options, record=record)
        if report.finished:
            after = load(sliced.student, folder.last_student)
            self._tell_costs(sliced, after, [report.teacher, report.last])
        return report.status
