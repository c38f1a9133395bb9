"""From a recipe to the module that is trained: the student, and what it follows, checked on real data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from limbeck.core.auto_weight import BATCHES
from limbeck.core.distiller import Distiller
from limbeck.core.modules import call, evaluating, set_training
from limbeck.teacher.prepare import prepare_teacher
from limbeck.training.alone import Alone
from limbeck.training.by_class import found_by
from limbeck.training.display import Display, show
from limbeck.training.layout import lay_out
from limbeck.training.loaders import Loaders
from limbeck.training.preflight import Row, preflight
from limbeck.training.recipe import Recipe

Trained = Alone | Distiller


class Built(NamedTuple):
    """What is trained, and what was found out about it."""

    trained: Trained
    teacher: dict[str, float]  # metrics of the teacher, if it was measured
    teacher_classes: Mapping[str, Any] | None  # class by class
    matches: list[Row]


def build(recipe: Recipe, loaders: Loaders, example: Any, device: torch.device, display: Display) -> Built:
    """The student, beside its teacher if it has one, on a device."""
    student = recipe.student.to(device)
    if recipe.budget.sync_norms:
        if device.type != "cuda":
            raise ValueError(f"--sync-norms is for GPUs: torch's SyncBatchNorm does not run on {device.type}")
        student = nn.SyncBatchNorm.convert_sync_batchnorm(student)  # type: ignore[no-untyped-call]
    if recipe.budget.channels_last and (note := lay_out(student, device)):
        display.say(note)
    if recipe.teacher is None:
        return Built(Alone(student), {}, None, [])
    task, plain = recipe.task, recipe.teacher.to(device)
    metrics: dict[str, float] = {}
    classes = None
    if recipe.teacher_check:
        metrics = task.evaluate_teacher(plain, loaders.validation("measuring the teacher"))
        display.say(f"teacher: {show(metrics, task.metric)}")
        task.check_teacher(metrics)
        classes = found_by(task)
    layers = dict.fromkeys(layer for match in recipe.matches for layer in match.teacher)
    inputs, teacher_inputs, truth = task.inputs(example), task.teacher_inputs(example), task.truth(example)
    teacher = prepare_teacher(
        plain, layers, example=inputs if teacher_inputs is None else teacher_inputs, **recipe.prepare
    )
    distiller = Distiller(student, teacher, recipe.matches, example=inputs, truth=truth, teacher_inputs=teacher_inputs)
    distiller.to(device)
    rows = preflight(distiller, inputs, truth=truth, teacher_inputs=teacher_inputs)
    for row in rows:
        display.say(str(row))
    batches = loaders.total_steps * recipe.budget.accumulate
    if batches <= BATCHES and any(match.measuring for match in distiller.matches):
        display.say(
            f"the weight auto settles over {BATCHES} batches, and this run has {batches}; train for longer, or pass "
            "--weight"
        )
    return Built(distiller, metrics, classes, rows)


@contextmanager
def refusing_single_values(student: nn.Module) -> Iterator[None]:
    """Refuse a student of which a batch norm, once it trains, would see one value a channel: torch normalises none.

    The model is called in between, with as many images as in a step; its batch norms may be in eval mode then.
    """
    set_training(student, True)  # of which some models leave norms out
    norms = {path: module for path, module in student.named_modules() if _trains(module)}
    single: list[str] = []

    def note(path: str, _: nn.Module, args: tuple[Any, ...]) -> None:
        if args and args[0].numel() == args[0].shape[1]:
            single.append(path)

    hooks = [module.register_forward_pre_hook(partial(note, path)) for path, module in norms.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
    if single:
        raise ValueError(
            f"the batch norm {single[0]} of {type(student).__name__} would see a map of 1x1 of a single image, which "
            "cannot be normalised: take a larger --batch-size (or smaller --accumulate), or larger images"
        )


def _trains(module: nn.Module) -> bool:
    """Whether a module is a batch norm that takes its statistics from the batch; frozen ones do not."""
    if not isinstance(module, nn.modules.batchnorm._BatchNorm) or not module.training:
        return False
    return not module.affine or module.weight.requires_grad


def has_unused(student: nn.Module, recipe: Recipe, example: Any) -> bool:
    """Try the student's own loss; whether there are parameters that it does not reach, as an encoder's last may be.

    Raises:
        ValueError: The loss cannot be computed, as where a model has outputs for fewer classes than the data, or a
            batch norm would see a single value.
    """
    trained = [parameter for parameter in student.parameters() if parameter.requires_grad]
    with evaluating(student), torch.enable_grad(), refusing_single_values(student):
        for module in student.modules():
            module.training = not isinstance(module, nn.modules.batchnorm._BatchNorm)  # a detector gives losses then
        try:
            loss = recipe.task.loss(call(student, recipe.task.inputs(example)), example)
        except (IndexError, ValueError) as error:
            raise ValueError(
                f"no loss comes of what {type(student).__name__} gives for the first images ({error}); has it an "
                "output for each class?"
            ) from error
        gradients = torch.autograd.grad(loss, trained, allow_unused=True)
    return any(gradient is None for gradient in gradients)
