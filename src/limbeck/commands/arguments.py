"""The command line of a recipe: its function's arguments, and those of the run."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import shutil
import textwrap
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Generic, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro

from limbeck.commands.words import absolute, check, check_choices, is_of_files, values_of
from limbeck.training.options import RunOptions
from limbeck.training.ranges import check_ranges
from limbeck.training.recipe import Recipe

MakeRecipe = Callable[..., Recipe]
OfRecipe = TypeVar("OfRecipe")


@dataclass(frozen=True)
class Arguments(Generic[OfRecipe]):
    """A command line: what the recipe function takes, and what is asked of the run."""

    recipe: OfRecipe
    out: Path
    """Folder of the run: recipe.json, metrics.jsonl, console.log, checkpoints, student.safetensors."""
    run: RunOptions


def parse(make: MakeRecipe, program: str, words: list[str]) -> Arguments[dict[str, Any]]:
    """Parse the arguments of a recipe function, and of the run, from one command line; paths become absolute."""

    @functools.wraps(make)  # so it has its signature and its help, too
    def given(**arguments: Any) -> dict[str, Any]:
        return arguments

    of_recipe = Annotated[dict[str, Any], tyro.conf.arg(constructor=given, name="")]
    parsed = _parse(Arguments[of_recipe], _kinds(make), program, words, _first_line(make))
    return dataclasses.replace(parsed, recipe={name: _absolute(name, value) for name, value in parsed.recipe.items()})


def parse_options(options: Any, data: type, program: str, words: list[str]) -> Arguments[Any]:
    """Parse options, and those of the run, from one command line; paths become absolute.

    Args:
        options: A dataclass of the type of its data.
        data: The type of its data.
        program: What the command is called.
        words: What was typed behind it.
    """
    kinds = {**_kinds(options), **_kinds(data)}
    of_options = Annotated[options[data], tyro.conf.arg(name="")]
    parsed = _parse(Arguments[of_options], kinds, program, words, _first_line(options))
    return dataclasses.replace(parsed, recipe=_absolute("", parsed.recipe))


def call(command: Callable[..., None], program: str, words: list[str]) -> None:
    """Call a command's function with what was typed behind its name.

    Raises:
        ValueError: An option does not exist, or is there twice.
    """
    if "-h" not in words:
        kinds = _kinds(command)
        check(words, kinds)
        check_choices(words, _choices(kinds))
    tyro.cli(command, args=words, prog=program, description=_flowing(_above_arguments(command)))


def _parse(
    form: type[Arguments[OfRecipe]], kinds: Mapping[str, Any], program: str, words: list[str], description: str
) -> Arguments[OfRecipe]:
    known = {"out": Path, **kinds, **_kinds(RunOptions)}
    if "-h" not in words:
        check(words, known, {name for name, kind in known.items() if _is_repeated(kind)})
        _check_values(words, known)
        check_choices(words, _choices(known))
    return tyro.cli(
        form, args=words, prog=program, description=_flowing(description), config=(tyro.conf.OmitArgPrefixes,)
    )


def _check_values(words: list[str], known: Mapping[str, Any]) -> None:
    """Refuse numbers out of their ranges, and another number of values than an option takes where that is several."""
    typed: dict[str, Any] = {}
    for name, kind in known.items():
        rows = [each for each in (kind, *get_args(kind)) if get_origin(each) is tuple]
        counts = [len(get_args(row)) for row in rows if Ellipsis not in get_args(row)]
        values = values_of(words, name)
        if counts and values and values != ["None"] and len(values) not in counts:
            raise ValueError(f"--{name} takes {counts[0]} values, not {len(values)}: {' '.join(values)}")
        with suppress(ValueError):  # what is no number is told by who parses it
            numbers = tuple(int(value) if value.lstrip("-").isdecimal() else float(value) for value in values)
            typed[name.replace("-", "_")] = numbers if len(numbers) != 1 else numbers[0]
    check_ranges(typed)


def _above_arguments(command: Callable[..., Any]) -> str:
    return (inspect.getdoc(command) or "").partition("\n\nArgs:")[0]


def _flowing(text: str) -> str:
    """Paragraphs that break between words at the terminal's width; tyro leaves that to the terminal, which cuts words.

    It joins lines, but for those that begin with no letter.
    """
    width = shutil.get_terminal_size().columns - 1
    wrapper = textwrap.TextWrapper(width, subsequent_indent=" ", break_on_hyphens=False)
    return "\n\n".join(wrapper.fill(" ".join(each.split())) for each in text.split("\n\n"))


def _first_line(make: Callable[..., Any]) -> str:
    return (make.__doc__ or "").partition("\n")[0]


def _kinds(make: Callable[..., Any]) -> dict[str, Any]:
    """The options that a function or a dataclass has, with their types; those of dataclasses in it in their stead."""
    kinds: dict[str, Any] = {}
    hints = get_type_hints(make, include_extras=True)
    for name in inspect.signature(make).parameters:
        kind = hints.get(name)
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            kinds |= _kinds(kind)
        else:
            kinds[name.replace("_", "-")] = kind
    return kinds


def _is_repeated(kind: Any) -> bool:
    """Whether an option is to be named once for each of its values."""
    return tyro.conf.UseAppendAction in getattr(kind, "__metadata__", ())


def _choices(kinds: Mapping[str, Any]) -> dict[str, list[str]]:
    """What options take of which these words alone are values, by their names."""
    choices: dict[str, list[str]] = {}
    for name, kind in kinds.items():
        parts = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
        if all(part is NoneType or get_origin(part) is Literal for part in parts):
            choices[name] = [word for part in parts for word in (("None",) if part is NoneType else get_args(part))]
    return choices


def _absolute(name: str, value: Any) -> Any:
    """An argument, with the paths in it made absolute: a run is to be resumed and evaluated from anywhere."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: _absolute(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **parts)
    if isinstance(value, Path):
        return value.absolute()
    return absolute(value) if isinstance(value, str) and is_of_files(name) else value
