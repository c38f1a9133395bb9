"""What the commands do: from arguments to a recipe, a run folder, or a table."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import platform
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_type_hints

import torch
import tyro
from rich.console import Console
from rich.table import Table

from limbeck.checkpoint import write_atomically
from limbeck.data.images import load_images
from limbeck.data.transforms import ValImages
from limbeck.layers import survey
from limbeck.models import build_model, load_weights, read_card
from limbeck.recipe import Recipe
from limbeck.recipes import classification
from limbeck.tasks.classification import Classification
from limbeck.train import train as train_recipe

MakeRecipe = Callable[..., Recipe]

RUN_OPTIONS = """
        out: Folder of the run: recipe.json, metrics.jsonl, checkpoints, student.safetensors.
        resume: Go on from the newest checkpoint in --out, if there is one.
        tracker: Log to a tracker of Accelerate's too: tensorboard, wandb, mlflow, comet_ml, clearml, aim.
"""


def distill(arguments: list[str]) -> None:
    """A recipe by name or file, or a run folder to resume."""
    _run("distill", {"classification": classification.distill}, arguments)


def train(arguments: list[str]) -> None:
    """A model alone."""
    _run("train", {"classification": classification.train}, arguments)


def _run(command: str, built_in: dict[str, MakeRecipe], arguments: list[str]) -> None:
    name, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if (Path(name) / "recipe.json").is_file():
        command, name, rest = _stored(Path(name), rest)
        built_in = {"classification": getattr(classification, command)}
    recipes = ", ".join(built_in)
    if name in built_in:
        make = built_in[name]
    elif name.endswith(".py"):
        make = _recipe_of(Path(name))
    else:
        raise ValueError(f"limbeck {command} takes a recipe ({recipes}, or FILE.py) or a run folder, not {name!r}")
    out, resume, tracker, recipe, given = _parse(make, f"limbeck {command} {name}", rest)
    if not (resume and (out / "recipe.json").is_file()):
        if (out / "recipe.json").is_file():
            raise ValueError(f"{out} holds a run already; go on with --resume, or choose another --out")
        stored = {"command": command, "recipe": name, "argv": rest, "arguments": given, **_circumstances(given)}
        write_atomically(out / "recipe.json", json.dumps(stored, indent=1, default=str).encode())
    train_recipe(recipe, out, resume=resume, tracker=tracker)


def _stored(run: Path, rest: list[str]) -> tuple[str, str, list[str]]:
    """The command, recipe and arguments with which a run was started."""
    if rest != ["--resume"]:
        raise ValueError(f"{run} is a run: the only option is --resume, for everything else is in its recipe.json")
    stored = json.loads((run / "recipe.json").read_text())
    argv: list[str] = [word for word in stored["argv"] if word != "--resume"]
    place = next(i for i, word in enumerate(argv) if word.split("=")[0] == "--out")
    argv[place : place + (1 if "=" in argv[place] else 2)] = ["--out", str(run), "--resume"]
    return stored["command"], stored["recipe"], argv


def _recipe_of(path: Path) -> MakeRecipe:
    from limbeck.models import _from_file

    make: MakeRecipe = _from_file(path, path.stem)
    return make


def _parse(make: MakeRecipe, program: str, arguments: list[str]) -> tuple[Path, bool, str | None, Recipe, dict[str, Any]]:
    """Parse the arguments of a recipe function, and of the run, in one command line, and make the recipe."""

    def command(**given: Any) -> tuple[Path, bool, str | None, Recipe, dict[str, Any]]:
        out, resume, tracker = (given.pop(name) for name in ("out", "resume", "tracker"))
        plain = {k: dataclasses.asdict(v) if dataclasses.is_dataclass(v) else v for k, v in given.items()}
        return out, resume, tracker, make(**given), plain

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
    weights = {
        name: hashlib.sha256(Path(value).read_bytes()).hexdigest()
        for name, value in given.items()
        if name.endswith("weights") and isinstance(value, str) and Path(value).is_file()
    }
    packages = ("limbeck", "torch", "torchvision", "timm", "accelerate")
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "commit": git.stdout.strip() or None,
        "sha256": weights,
        "command_line": sys.argv,
    }


def evaluate(arguments: list[str]) -> None:
    tyro.cli(_evaluate, args=arguments, prog="limbeck evaluate")


def _evaluate(runs: tyro.conf.Positional[list[Path]], /, data: str | None = None, batch_size: int = 128) -> None:
    """Evaluate the students of runs, and the teacher that the first of them had, on validation images.

    Args:
        runs: Run folders: a distilled student, and those it is to be compared with, such as the student alone.
        data: As for limbeck train; by default the data of the first run.
        batch_size: Images at a time.
    """
    stored = json.loads((runs[0] / "recipe.json").read_text()) if (runs[0] / "recipe.json").is_file() else None
    if stored is None:
        raise ValueError(f"{runs[0]} holds no run")
    given = stored["arguments"]
    table = Table(title=f"validation images of {data or given['data']['data']}", title_justify="left")
    rows: list[tuple[str, dict[str, float]]] = []
    _, images = load_images(data or given["data"]["data"], seed=given["data"]["data_seed"])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    teacher = given.get("teacher")
    models = [(str(run), str(run), None, None) for run in runs]
    if teacher:
        models.insert(0, (f"teacher {teacher}", teacher, given["teacher_weights"], given["teacher_size"]))
    task: Classification | None = None
    for label, name, weights, size in models:
        model, inputs = build_model(name, images.classes, size)
        if weights:
            load_weights(model, weights, name=name)
        here = Classification(len(images.classes), inputs, inputs)
        here._teacher_says = task._teacher_says if task else None
        loader = torch.utils.data.DataLoader(ValImages(images, inputs.size), batch_size)
        on_device = ({key: value.to(device) for key, value in batch.items()} for batch in loader)
        measure = here.evaluate_teacher if label.startswith("teacher") else here.evaluate
        rows.append((label, measure(model.to(device), on_device)))
        task = task or here
    columns = list(dict.fromkeys(name for _, metrics in rows for name in metrics))
    for column in ("model", *columns):
        table.add_column(column, overflow="fold")
    for label, metrics in rows:
        table.add_row(label, *(f"{metrics[name]:.4f}" if name in metrics else "" for name in columns))
    Console().print(table)


def layers(arguments: list[str]) -> None:
    tyro.cli(_layers, args=arguments, prog="limbeck layers")


def _layers(
    model: tyro.conf.Positional[str],
    /,
    size: int | None = None,
    beside: str | None = None,
    beside_size: int | None = None,
    depth: int = 3,
) -> None:
    """List the layers of a model: dotted path, kind and shape of its feature for one image, and its stride in pixels.

    Args:
        model: timm:NAME, torchvision:NAME, FILE.py:FUNCTION, or a run folder.
        size: Image size in pixels; the model's own by default.
        beside: A teacher: list it too, and say how the last maps of the two would meet.
        beside_size: The teacher's image size.
        depth: Longest path shown, in submodules.
    """
    console = Console(width=None if sys.stdout.isatty() else 160)
    last = [_show_layers(console, name, side, depth) for name, side in ((model, size), (beside, beside_size)) if name]
    if len(last) == 2 and last[0][1] != last[1][1]:
        (path, here), (teacher_path, there) = last
        console.print(f"{path} would be brought from {here[0]}x{here[1]} to the {there[0]}x{there[1]} of {teacher_path}")


def _show_layers(console: Console, name: str, size: int | None, depth: int) -> tuple[str, tuple[int, int]]:
    classes = read_card(Path(name) / "student.safetensors")["classes"] if Path(name).is_dir() else ["class"] * 1000
    built, inputs = build_model(name, classes, size)
    image = torch.zeros(1, 3, inputs.size, inputs.size)
    table = Table(title=f"{name} at {inputs.size} px", title_justify="left")
    for column in ("layer", "kind", "shape", "stride"):
        table.add_column(column)
    found = survey(built, image)
    for each in found:
        if each.path.count(".") < depth:
            grid = each.grid()
            stride = f"{inputs.size / grid[0]:g}" if grid else ""
            table.add_row(each.path or '"" (output)', each.kind, str(tuple(each.shape[1:])), stride)
    console.print(table)
    from limbeck.layers import last_feature

    path = last_feature(built, image).path
    grid = next(each.grid() for each in found if each.path == path)
    assert grid is not None
    console.print(f"last feature map: {path}")
    return path, grid
