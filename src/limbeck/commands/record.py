"""``recipe.json``: the arguments of a run and what else may change its result; what may differ when it is resumed."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from limbeck.commands.words import option, without
from limbeck.data.parts import HeldOut
from limbeck.models.files import file_and_name
from limbeck.models.run_folder import RunFolder
from limbeck.tasks import TASKS

WITHOUT_EFFECT = {"workers", "checkpoint_every", "teacher_check"}  # on what comes of a run
MAY_GROW = {"epochs", "max_steps", "patience"}  # an extension, which the run itself tells of
PLACES = {"data", "val_data", "unlabelled"}  # of images; checkpoints of training know what these are
CODE = "sha256 of code"
PACKAGES = ("limbeck", "torch", "torchvision", "timm", "accelerate")


def circumstances(given: Mapping[str, Any]) -> dict[str, Any]:
    """What else may change a result: versions, the commit of the working folder, hashes of weights and of code.

    Args:
        given: The arguments of a recipe by name.
    """
    names = texts(given)
    paths = {name: Path(value) for name, value in names.items()}
    weights = {name: RunFolder(path).student if path.is_dir() else path for name, path in paths.items()}
    code = {name: Path(file_and_name(value)[0]) for name, value in names.items()}
    return {
        "versions": {"python": platform.python_version(), **{name: version_of(name) for name in PACKAGES}},
        "commit": _commit(),
        "sha256": {name: sha256_of(path) for name, path in weights.items() if path.is_file()},
        CODE: {name: sha256_of(path) for name, path in code.items() if path.is_file()},
        "command_line": sys.argv,
    }


def texts(arguments: Mapping[str, Any]) -> dict[str, str]:
    """The options that are strings, by name."""
    return {name: value for name, value in options(arguments).items() if isinstance(value, str)}


def arguments_of(run: RunFolder) -> dict[str, Any]:
    """The options that a run was started with, by name; none where Python made it."""
    return options(run.read_record().get("arguments", {})) if run.record.is_file() else {}


def data_of(
    run: RunFolder, data: str | None, split: HeldOut | None = None, val_data: Path | None = None
) -> tuple[str, dict[str, Any]]:
    """Where a run's validation images are: its data, and which part of them is held out, as a card says it.

    Args:
        run: Whose own are taken.
        data: Others than its own.
        split: Another part than its own.
        val_data: Another place of validation images than its own.

    Raises:
        ValueError: Nobody says where its data lie.
    """
    given = arguments_of(run)
    if val_data is not None:
        return str(data or val_data), {"val_data": str(val_data), "split": split}
    own = {name: given.get(name) for name in ("val_data", "split")} if data is None else {}
    data = data or given.get("data")
    if data is None:
        raise ValueError(f"{run} was made by a recipe that does not say where its data lie; pass --data")
    return data, own if split is None else {"split": split}


def version_of(package: str) -> str:
    """Of a package, whose files may just lie on the path, as limbeck's own in a clone."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _commit() -> str | None:
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    except OSError:  # no git on this machine
        return None
    return done.stdout.strip() or None


def as_started(run: RunFolder, words: Sequence[str], *, compress: bool = False) -> list[str]:
    """The command line with which a run was started, from the command's name on, but for what is said anew.

    Args:
        run: The run.
        words: What is said anew.
        compress: Whether it is to be a run of ``limbeck compress``, or of the other commands.

    Raises:
        ValueError: It is not to go on, another command made it, or its record is damaged.
    """
    given = {name for name in map(option, words) if name is not None}
    if not given & {"resume", "help"}:
        raise ValueError(f"{run} is a run: go on with {run.going_on()}, and options that may change")
    stored = run.read_record()
    try:
        command, argv = stored["command"], without(stored["argv"], {"out", "resume", "overwrite", *given})
        model = [stored["arguments"]["teacher"]] if command == "compress" else []
        started = [command, stored["recipe"], *model, *argv, *words, "--out", str(run)]
    except KeyError as error:
        raise _damaged(run, error) from None
    if (command == "compress") is not compress:
        raise ValueError(f"{run} is a run of limbeck {command}: go on with {run.going_on()}")
    return started


def resumed(run: RunFolder, record: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The record of a run that goes on, and what the user should read of what is not as it was.

    Args:
        run: The run, with its record as it was.
        record: What would be written if it started now.

    Raises:
        ValueError: An argument or a file of weights differs, and would change what comes of the run.
    """
    stored, now = run.read_record(), json.loads(json.dumps(record, default=str))
    try:
        _check_same(run, stored, now)
    except KeyError as error:
        raise _damaged(run, error) from None
    notes = [
        *(f"the code of {name} has changed since the run started" for name in _differing(stored, now, CODE)),
        *(
            f"{name} has another version than when the run started, so what comes of it may differ in rounding"
            for name in _differing(stored, now, "versions")
        ),
    ]
    history = [*stored.get("resumed", []), {key: now[key] for key in ("command_line", "versions", "commit")}]
    return {**stored, **{key: now[key] for key in ("arguments", "argv")}, "resumed": history}, notes


def _damaged(run: RunFolder, error: KeyError) -> ValueError:
    return ValueError(f"{run.record} is damaged: it has no {error}; start the run again in another folder")


def _check_same(run: RunFolder, stored: dict[str, Any], now: dict[str, Any]) -> None:
    before_it, now_it = (f"{each['command']} {Path(each['recipe']).name}" for each in (stored, now))
    if before_it != now_it:
        raise ValueError(f"{run} is a run of limbeck {before_it}, not of limbeck {now_it}: choose another --out")
    before, after = options(stored["arguments"]), options(now["arguments"])
    same_file = {name for name, digest in now["sha256"].items() if stored["sha256"].get(name) == digest}  # moved, maybe
    moved = PLACES if stored["recipe"] in TASKS and stored["command"] != "compress" else set()
    changed = [
        f"--{name.replace('_', '-')} (was {_shown(name, before[name])}, is {_shown(name, after[name])})"
        for name in sorted(before.keys() & after.keys() - same_file - moved - WITHOUT_EFFECT)
        if before[name] != after[name] and not _has_grown(name, before[name], after[name])
    ]
    if changed:
        raise ValueError(
            f"{run} was started with other {', '.join(changed)}; resume it as it was started, or choose another --out"
        )
    if others := stored["sha256"].keys() & now["sha256"].keys() - same_file:
        name = min(others)
        raise ValueError(
            f"the weights of {name} ({after[name]}) are not those that {run} was started with (their sha256 differs); "
            "put the old file back, or choose another --out"
        )


def _shown(name: str, value: Any) -> str:
    if (value is None and name != "clip") or value == []:  # None is no clipping, and not the default
        return "the default"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _has_grown(name: str, before: Any, after: Any) -> bool:
    return name in MAY_GROW and (after is None or (before is not None and after > before))


def _differing(stored: dict[str, Any], now: dict[str, Any], part: str) -> list[str]:
    before = stored.get(part, {})
    return [name for name, value in now[part].items() if name in before and before[name] != value]


def options(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a recipe by name, those that it holds in groups, too, as they stand on the command line."""
    groups = [value if isinstance(value, dict) else {name: value} for name, value in arguments.items()]
    return {name: value for group in groups for name, value in group.items()}
