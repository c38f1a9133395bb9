"""Feature distillation for PyTorch: make a small vision model learn from a big one."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from limbeck.api import *  # noqa: F403


def __getattr__(name: str) -> Any:
    """What is public, when it is first asked for: ``limbeck --help`` need not wait for torch."""
    api = import_module("limbeck.api")
    if name == "__all__" or name in api.__all__:
        return getattr(api, name)
    raise AttributeError(f"module 'limbeck' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(import_module("limbeck.api").__all__)
