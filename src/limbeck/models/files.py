"""Functions in files that the user names."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any


def function_in(path: Path, function: str) -> Any:
    """A function of a Python file, which is run: only for files that the user names."""
    if not path.is_file():
        raise ValueError(f"no file {path}, in which {function} should be")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, function):
        raise ValueError(f"{path} has no function {function!r}")
    return getattr(module, function)


def function_at(name: str) -> Any:
    """As ``function_in``, of ``FILE.py:FUNCTION``."""
    file, _, function = name.rpartition(":")
    return function_in(Path(file), function)
