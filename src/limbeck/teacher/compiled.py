"""Run a teacher compiled, or the part of it that a compiler can make one graph of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.core.modules import find
from limbeck.core.teacher import Inputs, Teacher


class Compiled:
    """What runs a teacher, for ``Teacher(run=...)``: compiled, once its first inputs are known.

    The compiler drops what the layers do not need. Of a model that takes lists of images, as detectors do, a part that
    takes none is compiled.
    """

    def __init__(self) -> None:
        self._compiled: tuple[str, Callable[..., list[Tensor]]] | None = None  # path of the part, and what runs it

    def __call__(self, teacher: Teacher, inputs: Inputs) -> list[Tensor]:
        if self._compiled is None:
            path = part_to_compile(teacher.model, [layer.path for layer in teacher.capture.layers], *inputs)
            capture = teacher.capture.of_part(path)
            self._compiled = path, torch.compile(lambda *args, **kwargs: list(capture(*args, **kwargs)[1].values()))
        path, run = self._compiled
        inputs_of_part = inputs_of(teacher.model, path, *inputs)
        if inputs_of_part is None:
            raise RuntimeError(f"{path} of {type(teacher.model).__name__} did not run in this forward")
        args, kwargs = teacher.prepare_inputs(inputs_of_part)
        return run(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {"_compiled": None}  # or a deep copy would run the original's weights


def part_to_compile(model: nn.Module, paths: Sequence[str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """The path of the outermost submodule that holds all of these and takes no lists; the model's where there is none.

    What takes a list of images handles them one by one, which breaks the graph, and of a broken graph the compiler
    cannot drop what nobody needs.
    """
    for path in ("", *holders(paths)):
        inputs = inputs_of(model, path, args, kwargs)
        if inputs and not any(isinstance(value, list | tuple | dict) for value in (*inputs[0], *inputs[1].values())):
            return path
    return ""


def holders(paths: Sequence[str]) -> list[str]:
    """The submodules that hold all of these, from the outermost on.

    >>> holders(["backbone.body.layer1", "backbone.body.layer4"])
    ['backbone', 'backbone.body']
    """
    names = paths[0].split(".")
    parts = [".".join(names[: depth + 1]) for depth in range(len(names))]
    return [part for part in parts if all(f"{path}.".startswith(f"{part}.") for path in paths)]


def inputs_of(model: nn.Module, path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Inputs | None:
    """What a submodule is called with in a forward pass, which stops there; ``None`` if it is not called."""
    if not path:
        return args, kwargs
    inputs: list[Inputs] = []

    def stop(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs.append((args, kwargs))
        raise _Entered

    hook = find(model, path).register_forward_pre_hook(stop, with_kwargs=True)
    try:
        model(*args, **kwargs)
    except _Entered:
        pass
    finally:
        hook.remove()
    return inputs[0] if inputs else None


class _Entered(BaseException):  # not Exception: a model may catch those
    """The inputs were seen; the rest of the forward is not needed."""
