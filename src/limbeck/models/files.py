"""Functions in files that the user names."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn


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
    """
    if not path.is_file():
        raise ValueError(f"no file {path}, in which {function} should be")
    module = _imported(path.resolve())
    if not hasattr(module, function):
        raise ValueError(f"{path} has no function {function!r}")
    return getattr(module, function)


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
        ValueError: There is no such function, or it gives no module.
    """
    file, function = file_and_name(name)
    make = function_in(Path(file), function)
    parameters = inspect.signature(make).parameters.values()
    takes = any(each.name == "num_classes" or each.kind is each.VAR_KEYWORD for each in parameters)
    try:
        model = make(num_classes=classes) if takes else make()
    except Exception as error:
        error.add_note(f"raised by {name}, which should make the model")
        raise
    if not isinstance(model, nn.Module):
        raise ValueError(f"{name} gives a {type(model).__name__}; it should give an nn.Module")
    return model
