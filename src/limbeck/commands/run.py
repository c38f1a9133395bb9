"""From arguments to a recipe and a run folder: what ``limbeck distill`` and ``limbeck train`` do."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_type_hints

import torch
import tyro
from accelerate import PartialState

from limbeck.methods.pairing import used_in
from limbeck.models.files import function_in
from limbeck.tasks.classification import recipe as classification
from limbeck.tasks.detection import instance
from limbeck.tasks.detection import recipe as detection
from limbeck.tasks.semantic import recipe as semantic
from limbeck.training.checkpoint import write_atomically
from limbeck.training.loop import train as train_recipe
from limbeck.training.recipe import Recipe

MakeRecipe = Callable[..., Recipe]
BUILT_IN: dict[str, dict[str, MakeRecipe]] = {
    "distill": {
        "classification": classification.distill,
        "detection": detection.distill,
        "instance": instance.distill,
        "semantic": semantic.distill,
    },
    "train": {
        "classification": classification.train,
        "detection": detection.train,
        "instance": instance.train,
        "semantic": semantic.train,
    },
}

RUN_OPTIONS = """
        out: Folder of the run: recipe.json, metrics.jsonl, checkpoints, student.safetensors.
        resume: Go on from the newest checkpoint in --out, if there is one.
        tracker: Log to a tracker of Accelerate's too: tensorboard, wandb, mlflow, comet_ml, clearml, aim.
"""


def distill(arguments: list[str]) -> None:
    """A recipe by name or file, or a run folder to resume."""
    _run("distill", BUILT_IN["distill"], arguments)


def train(arguments: list[str]) -> None:
    """A model alone."""
    _run("train", BUILT_IN["train"], arguments)


def _run(command: str, built_in: dict[str, MakeRecipe], arguments: list[str]) -> None:
    name, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if (Path(name) / "recipe.json").is_file():
        command, name, rest = _stored(Path(name), rest)
        built_in = BUILT_IN[command]
    recipes = ", ".join(built_in)
    if name in built_in:
        make = built_in[name]
    elif name.endswith(".py") or name.rpartition(":")[0].endswith(".py"):
        make = _recipe_of(name)
    else:
        raise ValueError(
            f"limbeck {command} takes a recipe ({recipes}, FILE.py or FILE.py:FUNCTION) or a run folder, not {name!r}"
        )
    parsed = _parse(make, f"limbeck {command} {name}", rest)
    record = parsed.out / "recipe.json"
    first = PartialState(cpu=not torch.accelerator.is_available()).is_main_process
    if first and record.is_file() and not parsed.resume:
        raise ValueError(f"{parsed.out} holds a run already; go on with --resume, or choose another --out")
    recipe = make(**parsed.given)
    if first and not record.is_file():
        plain = {key: vars(value) if dataclasses.is_dataclass(value) else value for key, value in parsed.given.items()}
        stored = {
            "command": command,
            "recipe": name,
            "argv": rest,
            "arguments": plain,
            "uses": used_in(recipe.matches),
            **_circumstances(plain),
        }
        write_atomically(record, json.dumps(stored, indent=1, default=str).encode())
    train_recipe(recipe, parsed.out, resume=parsed.resume, tracker=parsed.tracker)


def _stored(run: Path, rest: list[str]) -> tuple[str, str, list[str]]:
    """The command, recipe and arguments with which a run was started."""
    if rest != ["--resume"]:
        raise ValueError(f"{run} is a run: the only option is --resume, for everything else is in its recipe.json")
    stored = json.loads((run / "recipe.json").read_text())
    argv: list[str] = [word for word in stored["argv"] if word != "--resume"]
    place = next(i for i, word in enumerate(argv) if word.split("=")[0] == "--out")
    argv[place : place + (1 if "=" in argv[place] else 2)] = ["--out", str(run), "--resume"]
    return stored["command"], stored["recipe"], argv


def _recipe_of(name: str) -> MakeRecipe:
    file, _, function = name.rpartition(":") if name.rpartition(":")[0].endswith(".py") else (name, "", "")
    make: MakeRecipe = function_in(Path(file), function or Path(file).stem)
    return make


@dataclass(frozen=True)
class Parsed:
    """A command line: what the run takes, and what the recipe function takes."""

    out: Path
    resume: bool
    tracker: str | None
    given: dict[str, Any]


def _parse(make: MakeRecipe, program: str, arguments: list[str]) -> Parsed:
    """Parse the arguments of a recipe function, and of the run, from one command line."""

    def command(**given: Any) -> Parsed:
        return Parsed(given.pop("out"), given.pop("resume"), given.pop("tracker"), given)

    keyword = inspect.Parameter.KEYWORD_ONLY
    own = [
        parameter.replace(kind=keyword, annotation=get_type_hints(make)[parameter.name])
        for parameter in inspect.signature(make).parameters.values()
    ]
    run = [
        inspect.Parameter("out", keyword, annotation=Path),
        inspect.Parameter("resume", keyword, annotation=bool, default=False),
        inspect.Parameter("tracker", keyword, annotation=str | None, default=None),
    ]
    parameters = sorted([*own, *run], key=lambda parameter: parameter.default is not parameter.empty)
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    command.__doc__ = (make.__doc__ or "").rstrip() + RUN_OPTIONS
    return tyro.cli(command, args=arguments, prog=program, config=(tyro.conf.OmitArgPrefixes,))


def _circumstances(given: dict[str, Any]) -> dict[str, Any]:
    """What else may change a result: versions, the commit of the working folder, hashes of the weights."""
    git = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    files = {name: Path(value) for name, value in given.items() if isinstance(value, str)}
    files = {name: path / "student.safetensors" if path.is_dir() else path for name, path in files.items()}
    weights = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items() if path.is_file()}
    packages = ("limbeck", "torch", "torchvision", "timm", "accelerate")
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "commit": git.stdout.strip() or None,
        "sha256": weights,
        "command_line": sys.argv,
    }
