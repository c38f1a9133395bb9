"""What the commands ask of a kind of task, whichever it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from limbeck.core.modules import Example
from limbeck.data.order import Key
from limbeck.export.deployed import Deployed
from limbeck.models.build import BuildModel, Sources
from limbeck.models.model import Model
from limbeck.tasks.predictor import Predictor
from limbeck.training.by_class import ByClass
from limbeck.training.recipe import Recipe


class Validation(Protocol):
    """The validation data of a run, with which models are measured and pictures drawn."""

    classes: list[str]
    count: int  # images
    notes: list[str]  # on what was left out, for the user to read
    batch_size: int  # of which models are measured
    by_class: ByClass | None  # of the model that was measured last; None where there are too many classes

    def measure(self, model: Model, *, teacher: bool = False) -> dict[str, float]:
        """Metrics of a model; after a teacher was measured, others may be compared with it."""

    def example(self, model: Model, count: int) -> Example:
        """What to call a model with for a number of images: the first one, again and again."""

    def thin(self, count: int) -> None:
        """Measure on no more images than that, evenly spread over all."""

    def seen(self, model: Model, count: int, *, training: bool = False) -> list[Tensor]:
        """Images (3, H, W) in [0, 1], evenly spread, of the size at which a model sees them.

        Args:
            model: A model.
            count: Of images, or of all where there are fewer.
            training: Take those that are trained on, without augmentation.
        """

    def draw(self, models: Mapping[str, Model], count: int, folder: Path, score: float) -> None:
        """Draw the first images, the truth, and what each model predicts, by title.

        Args:
            models: By title.
            count: Of images.
            folder: Where the pictures go.
            score: Least score of an object that is drawn.
        """


class LoadWeights(Protocol):
    def __call__(self, model: Model, source: str, *, name: str) -> Any: ...


@dataclass(frozen=True)
class OnHub:
    """A kind of task on the Hugging Face hub.

    Args:
        task: What the hub calls it.
        loading: Python that builds ``model`` without limbeck, by the word before the colon of a model's name;
            ``{name}`` stands for what is behind it, ``{classes}`` for their number.
    """

    task: str
    loading: Mapping[str, str]


@dataclass(frozen=True)
class TaskKind:
    """A kind of task: everything that is different from other kinds.

    Args:
        name: As it is typed, and as a run's card has it.
        sources: Where its models come from.
        build: Makes a model from its name and the names of the classes.
        load_weights: Loads weights from a file, or those published for a name, into a teacher as ``build`` made it.
        distill, train: Make a recipe; their arguments are the command line.
        validation: Reads validation data as a run's card says: from where the data lie, the card, and a batch size or
            ``None``.
        predictor: Puts a run's model and its preprocessing together.
        deploy: Makes of a model what is exported.
        hub: What the Hugging Face hub is told of it.
        batch_panels: Training samples by their keys, (3, H, W) uint8 with the truth drawn in, each with a title.
        compress_method: What a compressed model follows the original by, unless another method is named; none takes
            what ``distill`` takes.
    """

    name: str
    sources: Sources
    build: BuildModel
    load_weights: LoadWeights
    distill: Callable[..., Recipe]
    train: Callable[..., Recipe]
    validation: Callable[[str, Mapping[str, Any], int | None], Validation]
    predictor: Callable[[Model], Predictor]
    deploy: Callable[[Model], Deployed]
    hub: OnHub
    batch_panels: Callable[[Any, Sequence[Key]], Iterator[tuple[str, Tensor]]]
    compress_method: tuple[str, ...] = ()
