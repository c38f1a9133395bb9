"""What a resumed run must have as it had it at its start."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from typing import Any

import torch
from torch import nn

from limbeck.core.match import Match
from limbeck.data.contents import hashed
from limbeck.training.build import Trained
from limbeck.training.recipe import Recipe

NOT_COMPARED = ("workers", "checkpoint_every", "usual", "epochs", "max_steps", "patience")  # the last three may grow


def fingerprint(recipe: Recipe, trained: Trained) -> dict[str, Any]:
    """What decides what comes of a run, in names and numbers: the budget, the data, the model, and what follows what.

    To be taken before a state is loaded, which weights and criteria are a part of.
    """
    budget = recipe.budget
    resolved = {"learning_rate": budget.highest_rate, "weight_decay": budget.decay}
    fixed = {name: value for name, value in dataclasses.asdict(budget).items() if name not in NOT_COMPARED}
    card = {name: value for name, value in recipe.card.items() if name != "model"}  # a path, which may be another
    if budget.warmup_epochs is None:  # a part of the epochs, then
        fixed.pop("warmup_epochs")
    described = {
        **fixed,
        **resolved,
        "training images": len(recipe.train_data),  # type: ignore[arg-type]
        **recipe.contents,
        "teacher (its weights)": None if recipe.teacher is None else _hashed(recipe.teacher),
        "tensors": {name: list(tensor.shape) for name, tensor in trained.state_dict().items()},
        **card,
        **{f"options of {match}": _options(match) for match in trained.matches},
    }
    plain: dict[str, Any] = json.loads(json.dumps(described, default=str))
    return plain


def _hashed(module: nn.Module) -> str:
    """A hash of the weights of a module, wherever they come from."""
    tensors = (tensor for tensor in module.state_dict().values() if isinstance(tensor, torch.Tensor))
    return hashed(tensor.cpu().reshape(-1).view(torch.uint8) for tensor in tensors)  # numpy has no bfloat16


def _options(match: Match) -> dict[str, Any]:
    """The weight as it was asked for, and the numbers that a criterion was made with."""
    made_with = _attributes(match.criterion).items()
    own = {name: value for name, value in made_with if isinstance(value, int | float | str)}
    weight = "auto" if match.auto is not None else match.weight
    if match.schedule is not None:
        weight = str(match.schedule) if dataclasses.is_dataclass(match.schedule) else "a function"
    return {"weight": weight, **{name: value for name, value in own.items() if name != "training"}}


def _attributes(criterion: Any) -> dict[str, Any]:
    """Of a module or function, where it has any, and what a partial function is given."""
    own = getattr(criterion, "__dict__", {})
    return {**_attributes(criterion.func), **criterion.keywords, **own} if isinstance(criterion, partial) else own


def check_same(stored: dict[str, Any], current: dict[str, Any], run: str) -> None:
    """Refuse to go on with a run as another.

    Raises:
        ValueError: Something differs, which the message names.
    """
    changed = []
    for name in stored.keys() | current.keys():
        before, now = stored.get(name), current.get(name)
        if before == now:
            continue
        if isinstance(before, dict) and isinstance(now, dict):
            parts = sorted(part for part in before.keys() | now.keys() if before.get(part) != now.get(part))
            changed += [f"{name} ({part} was {before.get(part)}, is {now.get(part)})" for part in parts[:1]]
        else:
            changed.append(f"{name} (was {before}, is {now})")
    if changed:
        raise ValueError(
            f"{run} was started with other {', '.join(sorted(changed))}; resume it as it was started, or start another "
            "run in another --out"
        )
