"""From arguments to a recipe and a run folder: what ``limbeck distill`` and ``limbeck train`` do."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import torch
import tyro
from accelerate import PartialState

from limbeck.methods.pairing import used_in
from limbeck.models.files import function_in
from limbeck.models.run_folder import RunFolder
from limbeck.tasks import TASKS, task_kind
from limbeck.training.checkpoint import write_atomically
from limbeck.training.loop import train as train_recipe
from limbeck.training.options import RunOptions
from limbeck.training.recipe import Recipe

MakeRecipe = Callable[..., Recipe]
OfRecipe = TypeVar("OfRecipe")


def distill(arguments: list[str]) -> None:
    """A recipe by name or file, or a run folder to resume."""
    _run("distill", arguments)


def train(arguments: list[str]) -> None:
    """A model alone."""
    _run("train", arguments)


def _run(command: str, arguments: list[str]) -> None:
    name, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if RunFolder(Path(name)).record.is_file():
        command, name, rest = _stored(RunFolder(Path(name)), rest)
    recipes = ", ".join(TASKS)
    if name in TASKS:
        make: MakeRecipe = getattr(task_kind(name), command)
    elif name.endswith(".py") or name.rpartition(":")[0].endswith(".py"):
        make = _recipe_of(name)
    else:
        raise ValueError(
            f"limbeck {command} takes a recipe ({recipes}, FILE.py or FILE.py:FUNCTION) or a run folder, not {name!r}"
        )
    parsed = _parse(make, f"limbeck {command} {name}", rest)
    folder, options = RunFolder(parsed.out), parsed.options
    first = PartialState(cpu=not torch.accelerator.is_available()).is_main_process
    if first and folder.record.is_file() and not options.resume:
        raise ValueError(f"{folder} holds a run already; go on with --resume, or choose another --out")
    recipe = make(**parsed.recipe)
    if first and not folder.record.is_file():
        given = parsed.recipe.items()
        plain = {key: vars(value) if dataclasses.is_dataclass(value) else value for key, value in given}
        stored = {
            "command": command,
            "recipe": name,
            "argv": rest,
            "arguments": plain,
            "uses": used_in(recipe.matches),
            **_circumstances(plain),
        }
        write_atomically(folder.record, json.dumps(stored, indent=1, default=str).encode())
    train_recipe(recipe, folder.path, options)


def _stored(run: RunFolder, rest: list[str]) -> tuple[str, str, list[str]]:
    """The command, recipe and arguments with which a run was started."""
    if rest != ["--resume"]:
        raise ValueError(f"{run} is a run: the only option is --resume, for everything else is in its recipe.json")
    stored = run.read_record()
    argv: list[str] = [word for word in stored["argv"] if word != "--resume"]
    place = next(i for i, word in enumerate(argv) if word.split("=")[0] == "--out")
    argv[place : place + (1 if "=" in argv[place] else 2)] = ["--out", str(run), "--resume"]
    return stored["command"], stored["recipe"], argv


def _recipe_of(name: str) -> MakeRecipe:
    file, _, function = name.rpartition(":") if name.rpartition(":")[0].endswith(".py") else (name, "", "")
    make: MakeRecipe = function_in(Path(file), function or Path(file).stem)
    return make


@dataclass(frozen=True)
class Arguments(Generic[OfRecipe]):
    """A command line: what the recipe function takes, and what is asked of the run."""

    recipe: OfRecipe
    out: Path
    """Folder of the run: recipe.json, metrics.jsonl, checkpoints, student.safetensors."""
    options: RunOptions


def _parse(make: MakeRecipe, program: str, arguments: list[str]) -> Arguments[dict[str, Any]]:
    """Parse the arguments of a recipe function, and of the run, from one command line."""

    @functools.wraps(make)  # so it has its signature and its help, too
    def given(**arguments: Any) -> dict[str, Any]:
        return arguments

    of_recipe = Annotated[dict[str, Any], tyro.conf.arg(constructor=given)]
    parsed: Arguments[dict[str, Any]] = tyro.cli(
        Arguments[of_recipe],
        args=arguments,
        prog=program,
        description=(make.__doc__ or "").partition("\n")[0],
        config=(tyro.conf.OmitArgPrefixes,),
    )
    return parsed


def _circumstances(given: dict[str, Any]) -> dict[str, Any]:
    """What else may change a result: versions, the commit of the working folder, hashes of the weights."""
    git = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    groups = [group for group in given.values() if isinstance(group, dict)]
    options = {name: value for group in (*groups, given) for name, value in group.items()}
    files = {name: Path(value) for name, value in options.items() if isinstance(value, str)}
    files = {name: RunFolder(path).student if path.is_dir() else path for name, path in files.items()}
    weights = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items() if path.is_file()}
    packages = ("limbeck", "torch", "torchvision", "timm", "accelerate")
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "commit": git.stdout.strip() or None,
        "sha256": weights,
        "command_line": sys.argv,
    }
