"""Functions in files that the user names."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from limbeck.data.inputs import Inputs


def file_and_name(text: str) -> tuple[str, str]:
    """The file of ``FILE.py:NAME``, and what stands behind the colon; no file where it is of another form.

    >>> file_and_name("C:/nets/mine.py:small"), file_and_name("loss.py:L1:beta=2"), file_and_name("timm:resnet50")
    (('C:/nets/mine.py', 'small'), ('loss.py', 'L1:beta=2'), ('', 'timm:resnet50'))
    """
    file, is_of_file, name = text.partition(".py:")
    return (f"{file}.py", name) if is_of_file else ("", text)


def function_in(path: Path, function: str) -> Any:
    """A function of a Python file, which is run: only for files that the user names.

    The file may import what lies beside it, as a script may.

    Raises:
        ValueError: There is no such file or function, or running the file fails.
    """
    if not path.is_file():
        raise ValueError(f"no file {path}, in which {function or 'a function'} should be")
    try:
        module = _imported(path.resolve())
    except Exception as error:  # of the user's own code
        raise ValueError(f"{path} cannot be run: {_told(error, path)}") from error
    if not callable(getattr(module, function, None)):
        parts = ast.parse(path.read_bytes()).body
        own = ", ".join(part.name for part in parts if isinstance(part, ast.FunctionDef | ast.ClassDef)) or "none"
        what = f"has no function {function!r}" if function else f"is a file: write {path}:FUNCTION"
        raise ValueError(f"{path} {what}; in it are: {own}")
    return getattr(module, function)


def _told(error: Exception, path: Path) -> str:
    """The error and the last line of the file from which it came; a syntax error says its own."""
    lines = [each.lineno for each in traceback.extract_tb(error.__traceback__) if each.filename == str(path.resolve())]
    where = f" (line {lines[-1]})" if lines else ""
    return f"{type(error).__name__}: {error}{where}"


def _imported(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(path.stem)
    sys.modules[path.stem] = module  # where dataclasses look up their annotations
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
        if before is not None:  # such as a module of the standard library that has the file's name
            sys.modules[path.stem] = before
    return module


def model_at(name: str, classes: int) -> nn.Module:
    """What the function at ``FILE.py:FUNCTION`` makes, called with ``num_classes=`` where it takes that.

    Raises:
        ValueError: There is no such function, it has to be called otherwise, fails, or gives no module.
    """
    file, function = file_and_name(name)
    make = function_in(Path(file), function)
    signature = inspect.signature(make)
    takes = any(each.name == "num_classes" or each.kind is each.VAR_KEYWORD for each in signature.parameters.values())
    given = {"num_classes": classes} if takes else {}
    try:
        signature.bind(**given)
    except TypeError:
        raise ValueError(
            f"{name} takes {signature}, but is called with num_classes={classes} alone: call the number of classes "
            "num_classes, and give every other parameter a default"
        ) from None
    try:
        model = make(**given)
    except Exception as error:  # of the user's own code
        raise ValueError(f"{name}, which should make the model, failed: {_told(error, Path(file))}") from error
    if not isinstance(model, nn.Module):
        raise ValueError(f"{name} gives a {type(model).__name__}; it should give an nn.Module")
    return model


def inputs_of(module: nn.Module, name: str, size: int | None = None) -> Inputs:
    """What a file's model takes: normalised as ImageNet is, or by its ``pretrained_cfg``, as timm's models have one.

    Raises:
        ValueError: That has something else than three numbers, of pixels from 0 to 1.
    """
    config: Any = getattr(module, "pretrained_cfg", None)
    own: dict[str, Any] = {}
    for key, least in (("mean", 0.0), ("std", 1e-3)) if isinstance(config, dict) else ():
        values = config.get(key, getattr(Inputs, key))
        if not (isinstance(values, tuple | list) and len(values) == 3 and all(least <= each <= 1 for each in values)):
            raise ValueError(
                f"{name}: the {key} of its pretrained_cfg is {values}, not three numbers from {least:g} to 1"
            )
        own[key] = tuple(map(float, values))
    return Inputs(size, **own)
