"""Make the forward pass of a frozen teacher, 40-80 % of a training step, cheaper."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
from torch import nn

from limbeck.core.capture import Capture, Layer
from limbeck.core.example import telling
from limbeck.core.features import as_layers
from limbeck.core.modules import Example, call, evaluating, set_training
from limbeck.core.teacher import Teacher
from limbeck.core.unread import FeatureError
from limbeck.teacher.check import Features, check_equal, check_finite, check_precision, check_repeatable
from limbeck.teacher.compiled import Compiled
from limbeck.teacher.fold import fold_norms

Change = Callable[[nn.Module], list[str]]  # changes a model in place, and says what it left as it was


def prepare_teacher(
    teacher: nn.Module,
    layers: Layer | str | Iterable[Layer | str],
    *,
    example: Example,
    truncate: bool = True,
    fold_norm: bool = True,
    channels_last: bool = True,
    dtype: torch.dtype | None = None,
    compile: bool = False,
) -> Teacher:
    """A copy of a teacher that gives the same features faster, for ``Distiller(student, teacher=...)``.

    What is on by default leaves the features equal but for rounding, which is checked on the example. A batch norm
    that cannot be folded is left as it is, and a switch with which the teacher fails or gives other features is left
    off; a warning says so.

    Args:
        teacher: Any module; it is left as it is. What ``torch.compile`` made is prepared, then compiled again.
        layers: The layers that matches will read, or the one.
        example: Inputs to call the teacher with: a tuple, a dict of keyword arguments, or one tensor.
        truncate: Stop the forward pass after the last of the layers.
        fold_norm: Fold batch norms into the convolutions before them.
        channels_last: Keep the weights of 2-d convolutions, and maps, in the channels_last memory format, which these
            prefer.
        dtype: Hold the weights in this precision, such as ``torch.bfloat16``; features come in it too.
        compile: Compile the forward pass with ``torch.compile``.

    Raises:
        ValueError: The teacher has no such layer, or is on the meta device.
        RuntimeError: A layer did not run exactly once; a feature is not finite, or is another one in this ``dtype``;
            or the teacher's forward is random in eval mode, so that nothing can be checked.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(9))
    >>> images = torch.zeros(2, 3, 8, 8)
    >>> teacher = prepare_teacher(model.eval(), ["2"], example=(images,))
    >>> {str(layer): feature.shape for layer, feature in teacher(images).items()}
    {'2': torch.Size([2, 4, 6, 6])}
    """
    wanted = as_layers(layers)
    plain = getattr(teacher, "_orig_mod", teacher)  # what torch.compile was given
    tensors = [*plain.parameters(), *plain.buffers()]
    if any(tensor.is_meta for tensor in tensors):
        raise ValueError("the teacher has tensors on the meta device; load its weights before it is prepared")
    changes: dict[str, Change] = {}
    if fold_norm:
        changes["fold_norm"] = partial(_fold, example=example, layers=wanted)
    if channels_last:
        changes["channels_last"] = _lay_out
    with torch.autocast(tensors[0].device.type if tensors else "cpu", enabled=False):
        expected = _plain_features(plain, wanted, example)
        model, done = _change(plain, changes, wanted, example, expected)
        if dtype is not None:
            model.to(dtype)
            check_precision(expected, _trial(model, wanted, example, "channels_last" in done, cast=True), dtype)
    return Teacher(
        model,
        wanted,
        truncate=truncate,
        channels_last="channels_last" in done,
        cast=dtype is not None,
        run=Compiled() if compile or plain is not teacher else None,
    )


def _change(
    plain: nn.Module, changes: dict[str, Change], layers: Sequence[Layer], example: Example, expected: Features
) -> tuple[nn.Module, list[str]]:
    """A copy of a model with those of the changes that leave its features as expected, and the names of these."""
    model = _copy(plain)
    done: list[str] = []
    for switch, change in changes.items():
        try:
            left = change(model)
            check_equal(expected, _trial(model, layers, example, switch == "channels_last"))
        except Exception as error:  # whatever a model fails with when it is changed
            left = [f"{switch}=False: {type(error).__name__}: {error}"]
            model = _copy(plain)
            check_repeatable(expected, _trial(model, layers, example))
            for earlier in done:
                changes[earlier](model)
        else:
            done.append(switch)
        for sentence in left:
            warnings.warn(f"the teacher {type(plain).__name__} is prepared with {sentence}", stacklevel=3)
    return model, done


def _fold(model: nn.Module, *, example: Example, layers: Sequence[Layer]) -> list[str]:
    left = [pair for pair in fold_norms(model, example, layers) if pair.obstacle]
    if not left:
        return []
    first = left[0]
    return [f"{len(left)} batch norms as they are, such as {first.norm.path}: {first.obstacle}"]


def _lay_out(model: nn.Module) -> list[str]:
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            for parameter in module.parameters(recurse=False):
                if parameter.ndim == 4:
                    parameter.data = parameter.contiguous(memory_format=torch.channels_last)
    return []


@torch.no_grad()  # a scripted part would be copied as the result of an operation, with a gradient
def _copy(model: nn.Module) -> nn.Module:
    copied = copy.deepcopy(model)
    set_training(copied, False)
    return copied


@torch.no_grad()
def _plain_features(model: nn.Module, layers: Sequence[Layer], example: Example) -> Features:
    """Features of a model as it is. What it computes its weights from stays, but they can be copied afterwards."""
    capture = Capture(model, layers)
    versions = _versions(model)
    try:
        with evaluating(model), telling(example, "teacher", model):
            features: Features = call(capture, example)[1]
    finally:
        capture.remove()
    if changed := [name for name, version in _versions(model).items() if version != versions.get(name, version)]:
        raise FeatureError(
            f"the teacher changes {changed[0]} in its forward, also in eval mode; was it exported in training mode?"
        )
    check_finite(features)
    return features


def _versions(model: nn.Module) -> dict[str, int]:
    return {name: buffer._version for name, buffer in model.named_buffers() if not buffer.is_inference()}


def _trial(
    model: nn.Module, layers: Sequence[Layer], example: Example, channels_last: bool = False, cast: bool = False
) -> Features:
    teacher = Teacher(model, layers, truncate=False, channels_last=channels_last, cast=cast)
    try:
        features: Features = call(teacher, example)
    finally:
        teacher.capture.remove()
    return features
