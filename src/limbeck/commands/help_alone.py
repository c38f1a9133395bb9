"""``--help`` without torch, which takes seconds to import and of which a command's options know nothing."""

from __future__ import annotations

import sys
from abc import ABCMeta
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from os.path import exists
from types import ModuleType
from typing import Any

NOT_NEEDED = {"torch", "torchvision", "torchmetrics", "timm", "accelerate", "safetensors", "numpy", "PIL"}


def asks_for_help_alone(words: Sequence[str]) -> bool:
    """Whether the words of a command line want to be explained, and name no file whose code would be run for that."""
    files = any(".py" in word or exists(word) for word in words[1:])  # pathlib's raises of a word as long as no name is
    return bool({"-h", "--help"} & set(words)) and not files


@contextmanager
def without_torch() -> Iterator[None]:
    """Let limbeck be imported with stand-ins for what its commands work with, as Sphinx does to read docstrings.

    Afterwards what was imported so is forgotten. Where torch is there already nothing is stood in for.
    """
    before = set(sys.modules)
    finder = _Finder()
    if "torch" not in before:
        sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        if finder in sys.meta_path:
            sys.meta_path.remove(finder)
            for name in set(sys.modules) - before:
                if name.partition(".")[0] in {*NOT_NEEDED, "limbeck"}:
                    _forget(name)


def _forget(name: str) -> None:
    """Forget an imported module, also as an attribute of its package, where ``from package import name`` looks."""
    module = sys.modules.pop(name)
    package, _, attribute = name.rpartition(".")
    if package in sys.modules and vars(sys.modules[package]).get(attribute) is module:
        delattr(sys.modules[package], attribute)


class _Finder(MetaPathFinder, Loader):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        return ModuleSpec(name, self, is_package=True) if name.partition(".")[0] in NOT_NEEDED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None: ...


class _Anything(ABCMeta):
    """Of classes that have every attribute, are what they give when called or indexed, and hold nothing."""

    def __getattr__(cls, name: str) -> Any:
        return _anything(name)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return cls

    def __getitem__(cls, key: Any) -> Any:
        return cls

    def __iter__(cls) -> Iterator[Any]:
        return iter(())


class _Module(ModuleType):
    def __getattr__(self, name: str) -> Any:
        return _anything(name)


def _anything(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return type.__call__(_Anything, name, (), {})
