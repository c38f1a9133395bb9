"""From arguments to a recipe and a run folder: what ``limbeck distill`` and ``limbeck train`` do."""

from __future__ import annotations

import dataclasses
from difflib import get_close_matches
from functools import partial
from pathlib import Path

from accelerate import PartialState

from limbeck.commands.arguments import MakeRecipe, parse
from limbeck.commands.model_card import write_model_card
from limbeck.commands.record import as_started, circumstances, resumed, texts
from limbeck.commands.words import absolute, absolute_words
from limbeck.methods.pairing import used_in
from limbeck.models.files import file_and_name, function_in
from limbeck.models.run_folder import RunFolder
from limbeck.tasks import TASKS, task_kind
from limbeck.tasks.first_batch import write_first_batch
from limbeck.training.devices import restarts
from limbeck.training.loop import train as train_recipe
from limbeck.training.ranges import check_ranges


def distill(arguments: list[str]) -> None:
    """A recipe by name or file, or a run folder to resume."""
    _run("distill", arguments)


def train(arguments: list[str]) -> None:
    """A model alone."""
    _run("train", arguments)


def _run(command: str, words: list[str]) -> None:
    name, rest = (words[0], words[1:]) if words else ("", [])
    if RunFolder(Path(name)).record.is_file():
        command, name, *rest = as_started(RunFolder(Path(name)), rest)
    if name in ("-h", "--help"):
        print(_help(command))
        return
    make = _recipe_of(command, name)
    parsed = parse(make, f"limbeck {command} {name}", rest)
    check_ranges({**parsed.recipe, "run": parsed.run})
    folder, options = RunFolder(parsed.out), parsed.run
    if folder.has_run() and not (options.resume or options.overwrite or restarts()):
        raise folder.occupied()
    plain = {key: vars(value) if dataclasses.is_dataclass(value) else value for key, value in parsed.recipe.items()}
    record = {
        "command": command,
        "recipe": absolute(name),
        "argv": absolute_words(rest),
        "arguments": plain,
        **circumstances(plain),
    }
    runs = {name: RunFolder(Path(value)) for name, value in texts(plain).items()}
    notes = [
        f"{name} {run} is a run that is not finished; its best student so far is used"
        for name, run in runs.items()
        if run.has_student() and not run.is_finished()
    ]
    if folder.has_run() and folder.record.is_file() and not options.overwrite:
        record, differing = resumed(folder, record)
        notes += differing
    recipe = make(**parsed.recipe)
    record = {**record, "uses": used_in(recipe.matches)}
    recipe = dataclasses.replace(recipe, notes=[*notes, *recipe.notes])
    draw = partial(write_first_batch, recipe) if recipe.card.get("task") in TASKS else None
    report = train_recipe(recipe, folder.path, options, record=record, draw_first_batch=draw)
    if report.finished and draw is not None and PartialState().is_main_process:
        write_model_card(folder, task_kind(recipe.card["task"]).hub, record)
    if report.status and not options.zero_when_stopped:
        raise SystemExit(report.status)


def _help(command: str) -> str:
    what = "a student beside a teacher" if command == "distill" else "a model alone"
    lines = [f"limbeck {command} RECIPE OPTIONS trains {what}, where RECIPE is one of", ""]
    lines += [f"  {name}" for name in TASKS]
    lines += ["  FILE.py         A recipe of your own: the function named like its file, or FILE.py:FUNCTION"]
    lines += ["  RUN --resume    The folder of a run, to go on with it", ""]
    return "\n".join([*lines, f"Each explains its options: limbeck {command} classification --help"])


def _recipe_of(command: str, name: str) -> MakeRecipe:
    if name in TASKS:
        built_in: MakeRecipe = getattr(task_kind(name), command)
        return built_in
    file, function = file_and_name(f"{name}:" if name.endswith(".py") else name)
    if file:
        make: MakeRecipe = function_in(Path(file), function or Path(file).stem)
        return make
    nearest = get_close_matches(name, TASKS, n=1)
    recipes = ", ".join(TASKS)
    raise ValueError(
        f"limbeck {command} takes a recipe ({recipes}, FILE.py or FILE.py:FUNCTION) or a run folder, not {name!r}"
        + (f"; did you mean {nearest[0]}?" if nearest else "")
    )
