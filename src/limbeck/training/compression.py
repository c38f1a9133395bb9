"""From a trained model to a compressed one in a run folder: closed forms, slices, then all of it at once."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
from accelerate.utils import send_to_device
from torch import nn

from limbeck.compress.factorise import Compressed, Row, Start, factorise
from limbeck.compress.forms import rebuild
from limbeck.compress.moments import Seen, moments_of
from limbeck.compress.norms import renew_norms
from limbeck.compress.ranks import Cost
from limbeck.compress.slices import slices_of
from limbeck.compress.training import Inputs, SliceTraining
from limbeck.models.compressed import LOADER
from limbeck.models.run_folder import RunFolder, read_card
from limbeck.training.checkpoint import write_atomically
from limbeck.training.display import Display
from limbeck.training.loaders import Loaders
from limbeck.training.recipe import Recipe
from limbeck.training.record import save_student
from limbeck.training.signals import StopRequest
from limbeck.training.slicing import sample, train_slices


@dataclass(frozen=True, kw_only=True)
class CompressOptions:
    """How much smaller, and how."""

    ratio: float = 0.5
    """Part of all the model's parameters (see --cost) to save. Several, as --ratio 0.3 0.5 0.7, are a run each."""
    cost: Cost = "parameters"
    """What --ratio counts: parameters, flops, or latency: the time of one image on this machine, measured by layer."""
    allocation: Literal["error", "uniform"] = "error"
    """Ranks by what each layer loses on the data, or the same part of every layer."""
    multiple: int = 1
    """Ranks are multiples of this where layers are wide enough; 16 is faster on many machines."""
    keep: tuple[str, ...] = ()
    """Dotted paths of parts that stay as they are (see limbeck layers)."""
    start: Start = "sequence"
    """What the closed forms keep: the weights (HOSVD), each layer's outputs on the data, or these layer after layer, of
    what the closed forms before give (sequence)."""
    sample: int = 512
    """Training images that the closed forms look at."""
    slices: Literal["blocks", "layers"] = "blocks"
    """What is trained by itself."""
    inputs: Inputs = "compressed"
    """What slices are fed with: the original's activations (the paper), or those of the compressed model."""
    slice_epochs: int = 1
    """Passes over the training images, at most, in which the slices learn; 0 leaves the closed forms as they are."""
    slice_rate: float = 3e-4
    """Highest learning rate of the slices, each by Adam; the paper's is 1e-3, too high after a good start."""
    slice_patience: int | None = 3
    """Epochs in a row without improvement after which a slice stops."""
    global_epochs: int = 0
    """Epochs of ordinary distillation of the whole model afterwards, with the original as its teacher."""
    teacher_check: bool = True
    """Stop if the original is no better than chance."""


@dataclass(frozen=True)
class Places:
    """What a compression keeps in its run folder beside what every run has."""

    folder: RunFolder

    @property
    def start(self) -> Path:
        """The model with its factors in closed form."""
        return self.folder.path / "start.safetensors"

    @property
    def sliced(self) -> Path:
        """The model after its slices have learnt."""
        return self.folder.path / "sliced.safetensors"

    @property
    def slices(self) -> Path:
        """Checkpoints and errors of the slices."""
        return self.folder.path / "slices"

    @property
    def loader(self) -> Path:
        """Loads the model without limbeck."""
        return self.folder.path / "load.py"

    @property
    def costs(self) -> Path:
        """What the model gives and costs, before and after."""
        return self.folder.path / "costs.json"

    def has_any(self) -> bool:
        return self.start.exists() or self.sliced.exists()

    def clear(self) -> None:
        for path in (self.start, self.sliced, self.loader, self.costs, *self.slices.glob("*")):
            path.unlink(missing_ok=True)


@dataclass
class Shared:
    """What runs that differ in their ratio alone need, found by the first of them."""

    moments: Seen | None = None
    """Of the original's layers on the sample."""


def close(
    recipe: Recipe, options: CompressOptions, loaders: Loaders, shared: Shared, say: Callable[[str], None]
) -> tuple[nn.Module, dict[str, Any]]:
    """The model with its factors in closed form, and a card that says what became of it."""
    example = send_to_device(recipe.collate([recipe.train_data[0, 0]]), loaders.accelerator.device)
    data = sample(recipe, loaders, options.sample)
    if shared.moments is None and options.start != "weights":
        say("moments of what the layers take and give")
        shared.moments = moments_of(recipe.student, data, options.keep)
    made = factorise(
        recipe.student,
        ratio=options.ratio,
        example=recipe.task.inputs(example),
        data=data,
        start=options.start,
        allocation=options.allocation,
        cost=options.cost,
        multiple=options.multiple,
        keep=options.keep,
        seen=shared.moments,
        say=say,
    )
    return made.model, {**recipe.card, **_described(made, recipe.card.get("compressed", {}))}


def learn_in_slices(
    recipe: Recipe,
    compressed: nn.Module,
    card: Mapping[str, Any],
    options: CompressOptions,
    loaders: Loaders,
    places: Places,
    display: Display,
    stop: StopRequest,
) -> int:
    """Train the slices of a model, in place; the status to end with, or 0 once all is done."""
    layers = [row["path"] for row in card["layers"]]
    paths = slices_of(recipe.student, layers, options.slices)
    training = SliceTraining(
        recipe.student,
        compressed,
        paths,
        inputs=options.inputs,
        rate=options.slice_rate,
        patience=options.slice_patience,
    )
    display.say(f"{len(paths)} slices ({options.slices}), fed by the {options.inputs} model: {', '.join(paths)}")
    if status := train_slices(recipe, training, loaders, places.slices, display, stop):
        return status
    renew_norms(recipe.student, compressed, sample(recipe, loaders, options.sample), but_within=paths)
    save_student(compressed, places.sliced, dict(card))
    return 0


def load(original: nn.Module, file: Path) -> nn.Module:
    """A compressed model from its file, beside the original."""
    model = deepcopy(original)
    rebuild(model, read_card(file)["new"])
    model.load_state_dict(safetensors.torch.load_file(file))
    return model


def finish(folder: RunFolder, model: nn.Module, card: dict[str, Any]) -> None:
    """Write the student of the run, which has no global part."""
    save_student(model, folder.student, card)
    save_student(model, folder.last_student, card)


def write_loader(places: Places) -> None:
    write_atomically(places.loader, LOADER.encode())


def rows_of(card: Mapping[str, Any]) -> list[Row]:
    """What became of each layer, as a card has it."""
    fields = [field.name for field in dataclasses.fields(Row)]
    return [Row(**{name: row[name] for name in fields}) for row in card["layers"]]


def _described(made: Compressed, before: Mapping[str, Any]) -> dict[str, Any]:
    """What a card says: the structure, also of a model that was compressed before, and what became of each layer."""
    plain: dict[str, Any] = json.loads(
        json.dumps(
            {
                "compressed": {**before, **made.structure},
                "new": made.structure,
                "layers": [dataclasses.asdict(row) for row in made.rows],
                "whole": made.whole,
            }
        )
    )
    return plain
