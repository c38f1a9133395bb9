"""What makes imports take less time: torchvision and timm without torch's compiler, and no look for garbage."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

COMPILER, UTILS = "torch._dynamo", "torch._dynamo.utils"


@contextmanager
def without_collecting() -> Iterator[None]:
    """What is imported is no garbage, and looking for some among what torch makes takes a fifth of the time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def import_without_compiler() -> None:
    """Import torchvision and timm, but not torch's compiler with them, which takes longer than both.

    While they are imported they want two functions of it: one says whether a device can compile, and is called once a
    detector runs; the other keeps a function from being compiled, so what compiles a model must not start by this.
    Where the compiler is loaded already, or a version of these wants more of it, they get the real one.
    """
    if COMPILER not in sys.modules:
        sys.modules[COMPILER] = _StandIn(COMPILER, disable=lambda function, *_args, **_options: function)
        sys.modules[UTILS] = _StandIn(UTILS, is_compile_supported=_is_compile_supported)
    try:
        with without_collecting():
            for name in ("torchvision", "torchvision.tv_tensors", "timm"):
                import_module(name)
    finally:
        _remove()


class _StandIn(ModuleType):
    """A module of these functions; whoever asks for more gets the real one."""

    def __init__(self, name: str, **functions: Any):
        super().__init__(name)
        vars(self).update(functions)

    def __getattr__(self, name: str) -> Any:
        wants_submodule = name == "__path__" and self.__name__ == COMPILER
        if name.startswith("__") and not wants_submodule:  # asked of every module there is, as by inspect
            raise AttributeError(name)
        _remove()
        return getattr(import_module(self.__name__), name)


def _remove() -> None:
    for name in (COMPILER, UTILS):
        if isinstance(sys.modules.get(name), _StandIn):
            del sys.modules[name]


def _is_compile_supported(device: str) -> bool:
    supported: bool = import_module(UTILS).is_compile_supported(device)
    return supported
