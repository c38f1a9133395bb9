"""``limbeck compress``: a trained model made smaller, slice by slice."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

from torch import nn

from limbeck.commands.arguments import Arguments, parse
from limbeck.commands.compress_tables import print_costs, print_layers
from limbeck.commands.record import circumstances, resumed
from limbeck.commands.words import absolute, absolute_words, option, without
from limbeck.methods.pairing import used_in
from limbeck.models.build import RUN, source_of
from limbeck.models.run_folder import RunFolder, read_card
from limbeck.tasks import TASKS, task_kind
from limbeck.tasks.kind import TaskKind
from limbeck.tasks.options import MatchOptions, TeacherOptions
from limbeck.training.checkpoint import write_atomically
from limbeck.training.compression import (
    CompressOptions,
    Places,
    close,
    finish,
    learn_in_slices,
    load,
    rows_of,
    write_loader,
)
from limbeck.training.devices import make_accelerator
from limbeck.training.display import Display, show
from limbeck.training.loaders import Loaders, telling_of_workers
from limbeck.training.lock import held
from limbeck.training.loop import train as train_recipe
from limbeck.training.ranges import check_ranges
from limbeck.training.recipe import Budget, Recipe
from limbeck.training.record import save_student
from limbeck.training.signals import StopRequest

DEFAULTS = CompressOptions()
USES = ("slice-wise", "Tucker-2")  # to be cited
HELP = """\
limbeck compress TASK MODEL --data DIR --ratio 0.5 --out RUN makes a trained model smaller: its layers become factors
that give what the layers gave, which then learn slice by slice, without labels. TASK is one of {tasks};
MODEL is the folder of a run, or a name as limbeck train takes it, with --weights.
limbeck compress RUN --resume goes on with a run that was stopped or killed.

The options: limbeck compress classification MODEL --help"""


def compress(words: list[str]) -> None:
    """A trained model made smaller."""
    if not words or words[0] in ("-h", "--help"):
        print(HELP.format(tasks=", ".join(TASKS)))
        return
    if RunFolder(Path(words[0])).record.is_file():
        words = _as_stored(RunFolder(Path(words[0])), words[1:])
    if words[0] not in TASKS:
        raise ValueError(f"limbeck compress takes a task ({', '.join(TASKS)}) or a run folder, not {words[0]!r}")
    if len(words) < 2 or (words[1].startswith("-") and words[1] not in ("-h", "--help")):
        raise ValueError(f"name the model: limbeck compress {words[0]} MODEL --data DIR --ratio 0.5 --out RUN")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("limbeck compress runs in one process; limbeck.distill_slices spreads slices over several")
    name, model = words[0], words[1]
    rest = ["--help"] if model in ("-h", "--help") else words[2:]
    kind = task_kind(name)
    parsed = parse(_options_of(kind), f"limbeck compress {name} MODEL", rest)
    Compression(kind, absolute(model), rest, parsed).run()


def _as_stored(run: RunFolder, words: list[str]) -> list[str]:
    """The words of the command that started a run, but for what is said anew."""
    given = {name for name in map(option, words) if name is not None}
    if "resume" not in given:
        raise ValueError(f"{run} is a run: go on with limbeck compress {run} --resume")
    stored = run.read_record()
    if stored.get("command") != "compress":
        raise ValueError(f"{run} is no run of limbeck compress; go on with limbeck distill {run} --resume")
    argv = without(stored["argv"], {"out", "resume", "overwrite", *given})
    return [stored["recipe"], stored["arguments"]["teacher"], *argv, *words, "--out", str(run)]


def _options_of(kind: TaskKind) -> Callable[..., Any]:
    """The function whose arguments are the command line for a kind of task."""

    def made(
        data: Any,
        weights: str | None = None,
        size: int | None = None,
        compress: CompressOptions = DEFAULTS,
        matching: MatchOptions = MatchOptions(),
        batch_size: int = 64,
        learning_rate: float | None = None,
        workers: int = 2,
        checkpoint_every: int = 500,
        seed: int = 0,
    ) -> Any:
        """Make a trained model smaller, slice by slice.

        Args:
            data: Images.
            weights: A .safetensors or .pth file for the model, or "pretrained"; a run folder brings its own.
            size: Image size in pixels, of a classifier; its own by default.
            compress: How much, and how.
            matching: What --global-epochs follow beside the labels; by default KD for classifiers.
            batch_size: Images a step.
            learning_rate: Highest of --global-epochs; by default what is usual for trained weights.
            workers: Loader processes; their number does not change the result.
            checkpoint_every: Steps between checkpoints.
            seed: Of the order and augmentation of the images.
        """

    made.__annotations__ = {
        **get_type_hints(made),
        "data": get_type_hints(kind.train)["data"],
    }
    return made


class Compression:
    """One run of the command.

    Args:
        kind: Of the task.
        model: By its name.
        words: Options as they were typed.
        parsed: And as they were understood.
    """

    def __init__(self, kind: TaskKind, model: str, words: list[str], parsed: Arguments[dict[str, Any]]):
        self.kind, self.model, self.given = kind, model, parsed.recipe
        self.options: CompressOptions = parsed.recipe["compress"]
        self.run_options = parsed.options
        check_ranges({**parsed.recipe, "options": parsed.options})
        self.folder = RunFolder(parsed.out)
        self.places = Places(self.folder)
        self.record = self._record(words)

    def run(self) -> None:
        """Do what is left to do."""
        overwrites = self.run_options.overwrite
        if (self.folder.has_run() or self.places.has_any()) and not (self.run_options.resume or overwrites):
            raise ValueError(
                f"{self.folder} holds a run already; go on with --resume, --overwrite it, or choose another --out"
            )
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
        plain = {key: vars(value) if dataclasses.is_dataclass(value) else value for key, value in self.given.items()}
        weights, size = plain.pop("weights"), plain.pop("size")
        plain |= {"teacher": self.model, "teacher_weights": weights, "teacher_size": size}
        record = {"command": "compress", "recipe": self.kind.name, "argv": absolute_words(words), "arguments": plain}
        return {**record, **circumstances(plain), "uses": list(USES)}

    def _recipe(self) -> Recipe:
        """The model as it is, with its data: its training images without the teacher."""
        given = self.given
        sized = {"size": given["size"]} if "size" in inspect.signature(self.kind.train).parameters else {}
        if given["size"] is not None and not sized:
            raise ValueError(f"--size is for classifiers; models of {self.kind.name} take images as they are")
        budget = Budget(
            epochs=max(1, self.options.slice_epochs),
            batch_size=given["batch_size"],
            workers=given["workers"],
            checkpoint_every=given["checkpoint_every"],
            seed=given["seed"],
        )
        recipe = self.kind.train(given["data"], self.model, weights=given["weights"], budget=budget, **sized)
        card = recipe.card
        if source_of(self.model)[0] == RUN:  # which need not stay where it is
            before = RunFolder(Path(self.model)).card()
            card = {**card, "model": before["model"], "compressed": before.get("compressed", {})}
        elif given["weights"] is None:
            raise ValueError(f"{self.model} has no trained weights: pass --weights, or the folder of a run as MODEL")
        return dataclasses.replace(recipe, card=card)

    def _slices(self, recipe: Recipe) -> int:
        """Closed forms and slices; the status to end with."""
        folder, places, options = self.folder, self.places, self.options
        overwrites = self.run_options.overwrite
        accelerator = make_accelerator(recipe.budget, folder.path, self.run_options)
        recipe.student.to(accelerator.device).eval()
        with Display() as display, held(folder, display.say), telling_of_workers():
            for note in recipe.notes:
                display.say(note)
            if folder.is_finished() and not overwrites:
                display.say(f"{folder} is finished already")
                return 0
            loaders = Loaders(recipe, accelerator, display)
            before = recipe.task.evaluate_teacher(recipe.student, loaders.validation("measuring the original"))
            display.say(f"original: {show(before, recipe.task.metric)}")
            recipe.task.check_teacher(before)
            if places.start.is_file() and not overwrites:
                compressed, card = load(recipe.student, places.start), read_card(places.start)
            else:
                compressed, card = close(recipe, options, loaders, display.say)
            print_layers(rows_of(card), card["whole"])
            if not self.run_options.dry_run:
                self._begin(compressed, card, display, overwrites=overwrites)
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
                    display.say(f"stopped; go on with: limbeck compress {folder} --resume")
                    return status
            after = self._tell("after slices", recipe, compressed, loaders, display)
            write_loader(places)
            if not options.global_epochs:
                finish(folder, places, compressed, {**card, "metrics": after})
                print_costs(recipe, {"original": recipe.student, "compressed": compressed}, [before, after])
                display.say(f"student: {folder.student}")
            return 0

    def _begin(self, compressed: nn.Module, card: dict[str, Any], display: Display, *, overwrites: bool) -> None:
        """Take the run folder."""
        if overwrites:
            self.folder.clear()
            self.places.clear()
        write_atomically(self.folder.record, json.dumps(self.record, indent=1, default=str).encode())
        save_student(compressed, self.places.start, card)
        display.record_to(self.folder.console)

    def _tell(
        self, what: str, recipe: Recipe, model: nn.Module, loaders: Loaders, display: Display
    ) -> dict[str, float]:
        metrics = recipe.task.evaluate(model, loaders.validation("evaluating"))
        display.say(f"{what}: {show(metrics, recipe.task.metric)}")
        return metrics

    def _global(self, sliced: Recipe) -> int:
        """Ordinary distillation of the compressed model, with the original as its teacher."""
        given, places, folder = self.given, self.places, self.folder
        file = places.sliced if places.sliced.is_file() else places.start
        matching: MatchOptions = given["matching"]
        if not matching.method and self.kind.name == "classification":
            matching = dataclasses.replace(matching, method=("KD",))
        sized = {"size": given["size"], "teacher_size": given["size"]} if given["size"] is not None else {}
        budget = dataclasses.replace(
            sliced.budget, epochs=self.options.global_epochs, learning_rate=given["learning_rate"]
        )
        recipe = self.kind.distill(
            given["data"],
            teacher=self.model,
            student=self.model,
            matching=matching,
            teacher_options=TeacherOptions(teacher_weights=given["weights"]),
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
            models = {"original": sliced.student, "compressed": after}
            print_costs(sliced, models, [report.teacher, report.last])
        return report.status
