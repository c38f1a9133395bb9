"""The first batch of a run as it is trained on: a wrong annotation is seen at once."""

from __future__ import annotations

from itertools import chain, islice
from pathlib import Path

from limbeck.data.order import TrainOrder
from limbeck.tasks import task_kind
from limbeck.tasks.pictures import write_batch
from limbeck.training.recipe import Recipe

MOST = 16  # images on the sheet


def write_first_batch(recipe: Recipe, file: Path) -> None:
    """Draw the first images of a run, augmented, with their labels, masks or boxes.

    Args:
        recipe: Of a task that limbeck has, by its card.
        file: A PNG.
    """
    length = len(recipe.train_data)  # type: ignore[arg-type]
    order = TrainOrder(length, recipe.budget.batch_size, epoch=0, seed=recipe.budget.seed)
    keys = list(islice(chain.from_iterable(order), min(MOST, recipe.budget.batch_size)))
    panels = task_kind(recipe.card["task"]).batch_panels(recipe.train_data, keys)
    write_batch(panels, recipe.card["classes"], file)
