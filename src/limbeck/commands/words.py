"""The words of a command line: which options they name, twice or wrongly, and what stands for a path."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

import tyro

from limbeck.models.files import file_and_name

Run = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]  # as --help calls what is not an option
Runs = Annotated[tyro.conf.Positional[list[Path]], tyro.conf.arg(metavar="RUN [RUN ...]")]
NAMES_OF_FILES = ("data", "teacher", "student", "model", "weights", "backbone", "unlabelled")  # their last words
ALSO_CALLED = {  # elsewhere
    "lr": "learning-rate",
    "wd": "weight-decay",
    "bs": "batch-size",
    "batch": "batch-size",
    "num-workers": "workers",
    "gpu": "device",
    "output": "out",
    "output-dir": "out",
    "early-stopping": "patience",
    "amp": "precision",
    "temperature": "method",
}


def option(word: str) -> str | None:
    """The option that a word names, in one spelling; ``None`` for a value.

    >>> [option(word) for word in ("--batch_size", "--batch-size=8", "--no-resume", "-1")]
    ['batch-size', 'batch-size', 'resume', None]
    """
    if not word.startswith("--"):
        return None
    return word[2:].split("=")[0].replace("_", "-").removeprefix("no-")


def check(words: Sequence[str], known: Collection[str], repeated: Collection[str] = ()) -> None:
    """Refuse options that do not exist, or are there twice.

    Args:
        words: A command line.
        known: Names of options.
        repeated: Those that are named once for each of their values.
    """
    names = [name for name in map(option, words) if name is not None]
    unknown = [name for name in dict.fromkeys(names) if name not in known and name != "help"]
    if len(unknown) == 1:
        hint = _nearest(unknown[0], known)
        raise ValueError(f"no option --{unknown[0]}; {f'did you mean {hint}?' if hint else '--help lists them'}")
    if unknown:
        hints = [(name, _nearest(name, known)) for name in unknown]
        options = ", ".join(f"--{name}" + (f" (did you mean {hint}?)" if hint else "") for name, hint in hints)
        raise ValueError(f"no options {options}; --help lists them")
    if twice := [name for name, count in Counter(names).items() if count > 1 and name not in repeated]:
        raise ValueError(f"--{twice[0]} is there twice; which one is meant?")


def check_choices(words: Sequence[str], choices: Mapping[str, Collection[str]]) -> None:
    """Refuse a value that is none of those that an option has.

    Args:
        words: A command line.
        choices: The values of options by their names.
    """
    for name, allowed in choices.items():
        if (value := next(iter(values_of(words, name)), None)) is not None and value not in allowed:
            nearest = get_close_matches(value, allowed, n=1)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            raise ValueError(f"--{name} is one of {', '.join(allowed)}, not {value}{hint}")


def _nearest(name: str, known: Collection[str]) -> str:
    nearest = [ALSO_CALLED[name]] if name in ALSO_CALLED else get_close_matches(name, known, n=3)
    return " or ".join(f"--{near}" for near in nearest)


def without(words: Sequence[str], names: Collection[str]) -> list[str]:
    """Words of a command line but for some options and their values.

    >>> without(["--epochs", "3", "--size=8", "--sides", "1", "2", "--out", "run"], {"epochs", "sides"})
    ['--size=8', '--out', 'run']
    """
    kept, dropping = [], False
    for word in words:
        name = option(word)
        dropping = dropping if name is None else name in names
        if not dropping:
            kept.append(word)
    return kept


def values_of(words: Sequence[str], name: str) -> list[str]:
    """The values of an option, as they were typed.

    >>> words = ["--ratio", "0.3", "0.5", "--out=small"]
    >>> values_of(words, "ratio"), values_of(words, "out"), values_of(words, "data")
    (['0.3', '0.5'], ['small'], [])
    """
    values: list[str] = []
    named = False
    for word in words:
        if option(word) is None:
            values += [word] if named else []
        else:
            named = option(word) == name
            values += word.split("=", 1)[1:] if named else []
    return values


def absolute_words(words: Sequence[str]) -> list[str]:
    """Words of a command line, with the paths of files in it made absolute.

    >>> absolute_words(["--method", "KD", "--data=digits"])
    ['--method', 'KD', '--data=digits']
    """
    result, names_files = [], False
    for word in words:
        name, equals, value = word.partition("=")
        is_option = option(word) is not None
        names_files = is_of_files(option(word) or "") if is_option else names_files
        if is_option:
            result.append(f"{name}={absolute(value)}" if equals and names_files else word)
        else:
            result.append(absolute(word) if names_files else word)
    return result


def is_of_files(name: str) -> bool:
    """Whether an argument names files, or models, which may be files."""
    return name.replace("-", "_").split("_")[-1] in NAMES_OF_FILES


def absolute(value: str) -> str:
    """A name of a model or of data, with the path in it made absolute where there is such a file or folder.

    >>> absolute("timm:resnet18"), absolute("digits")
    ('timm:resnet18', 'digits')
    """
    file, function = file_and_name(value)
    source, colon, rest = value.rpartition(":")
    if Path(value).exists() and value not in ("digits", "pretrained"):
        return str(Path(value).absolute())
    if file and Path(file).is_file():
        return f"{Path(file).absolute()}:{function}"
    if source in ("hf", "cifar10", "cifar100") and Path(rest).exists():
        return f"{source}{colon}{Path(rest).absolute()}"
    return value


def relative(value: str) -> str:
    """What ``absolute`` made of a name, as it is typed in this folder."""
    return value.replace(f"{Path.cwd()}{os.sep}", "")
