"""What is said where a model cannot be called with its example."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.core.modules import Example
from limbeck.core.recorder import versions_of


@contextmanager
def telling(
    example: Example, role: str, model: nn.Module, own: str = "example", remedy: str = "", shared: bool = False
) -> Iterator[None]:
    """Run a model on its example, and name both where it fails.

    Args:
        role: "student" or "teacher".
        own: Name of the argument that the example came by.
        remedy: What may be done besides, where the model takes other arguments.
        shared: Whether another model is called with the same after it.

    Raises:
        TypeError: The example is none, or the model does not take as many arguments or those of these names.
        ValueError: The model changes in place what is shared.
    """
    if not isinstance(example, Tensor | tuple | list | Mapping):
        raise TypeError(
            f"{own} is a {type(example).__name__}; it is what the {role} is called with: one tensor, a tuple of "
            "positional arguments, or a dict of keyword arguments"
        )
    _check_arguments(example, role, model, own, remedy)
    before = _versions(example)
    try:
        yield
    except Exception as error:
        what = f"a {type(model).__name__}{_on(model)}"
        note = f"while the {role}, {what}, was called with {own}, which is {_describe(example)}"
        if isinstance(example, list):
            note += f": positional arguments; for a model that takes a list pass {own}=([...],)"
        error.add_note(note)
        raise
    if shared and _versions(example) != before:
        raise ValueError(
            f"the {role}, a {type(model).__name__}, changes in place what it is called with, and the student would "
            "learn from that; let it make a tensor of its own, as images - mean for images.sub_(mean), or give it a "
            "copy, teacher_inputs=images.clone(), here and in each call"
        )


def _check_arguments(example: Example, role: str, model: nn.Module, own: str, remedy: str) -> None:
    try:
        expected = signature(model.forward)
    except (TypeError, ValueError):  # not every callable tells
        return
    named = example if isinstance(example, Mapping) else {}
    positional = () if isinstance(example, Mapping) else (example,) if isinstance(example, Tensor) else example
    try:
        expected.bind(*positional, **named)
    except TypeError as error:
        raise TypeError(
            f"{own} is {_describe(example)}, but the {role} takes {type(model).__name__}.forward{expected} ({error}); "
            f"pass what it is called with and nothing else, without labels, as {own}=(images,){remedy}"
        ) from None


def _versions(example: Example) -> list[int]:
    """How often its tensors were changed in place."""
    given = example if isinstance(example, Tensor | tuple | list) else dict(example)
    return [version for _, version in versions_of(given)]


def _on(model: nn.Module) -> str:
    """Where a model is, if that is no CPU, and in which precision, if that is not float32."""
    weight = next(model.parameters(), torch.empty(0))
    where = "" if weight.device.type == "cpu" else f" on {weight.device}"
    return where if weight.dtype == torch.float32 else f" in {str(weight.dtype).removeprefix('torch.')}{where}"


def _describe(value: Any) -> str:
    """An example in words, with the shapes of its tensors."""
    if isinstance(value, Tensor):
        where = "" if value.device.type == "cpu" else f" on {value.device}"
        return f"a Tensor {tuple(value.shape)} of {str(value.dtype).removeprefix('torch.')}{where}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {_describe(each)}" for key, each in value.items()) + "}"
    if isinstance(value, tuple | list):
        items = ", ".join(map(_describe, value[:4])) + (", ..." if len(value) > 4 else "")
        return f"({items}{',' * (len(value) == 1)})" if isinstance(value, tuple) else f"[{items}]"
    return f"{value!r:.60}"
