"""The weight of the task's own loss beside what is distilled."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from limbeck import LateStart, Match
from limbeck.tasks.options import MatchOptions
from limbeck.training.recipe import Budget, Recipe
from limbeck.training.step import TrainStep


class Squares:
    """A task of which the loss is the mean of the squared output."""

    def inputs(self, batch):
        return (batch,)

    def teacher_inputs(self, batch):
        return None

    truth = teacher_inputs

    def loss(self, output, batch):
        return output.square().mean()


def recipe_of(task_weight, weight=1.0):
    match = Match("", "", nn.MSELoss(), weight=weight)
    return Recipe(
        task=Squares(),
        student=nn.Linear(2, 2),
        matches=[match],
        task_weight=task_weight,
        train_data=[],
        val_data=[],
        budget=Budget(epochs=10),
    )


def losses_at(step, task_weight):
    def model(x, **others):
        return SimpleNamespace(output=x, losses={"match": torch.tensor(3.0)})

    train_step = TrainStep(recipe_of(task_weight), None, steps=10, steps_per_epoch=1)
    losses = train_step._losses(SimpleNamespace(model=model, step=step), torch.full((4,), 2.0))
    return [value.item() for value in losses.values()]


@pytest.mark.parametrize("weight", [1.0, 0.1, 0])
def test_the_tasks_loss_is_multiplied_and_the_matches_are_not(weight):
    assert losses_at(0, weight) == pytest.approx([4 * weight, 3])


def test_a_schedule_of_the_tasks_weight_follows_the_progress():
    assert [losses_at(step, LateStart(0.5, at=0.3))[0] for step in (0, 2, 3, 9)] == [0, 0, 2, 2]


@pytest.mark.parametrize(("spelt", "weight"), [("0.1", 0.1), (0, 0), ("LateStart:weight=1", LateStart(1.0))])
def test_the_tasks_weight_is_spelt_as_that_of_a_method(spelt, weight):
    assert MatchOptions(task_weight=spelt).weight_of_task == weight


def test_auto_is_no_weight_of_the_task():
    with pytest.raises(ValueError, match="--task-weight auto: the task's weight is a number or a schedule"):
        MatchOptions(task_weight="auto").weight_of_task  # noqa: B018


@pytest.mark.parametrize("weight", [-1.0, float("inf"), float("nan")])
def test_a_weight_that_is_none_is_refused(weight):
    with pytest.raises(ValueError, match=r"the task's weight is .* it must be 0 or more"):
        recipe_of(weight)


@pytest.mark.parametrize("task_weight", [0.0, LateStart(1.0)])
def test_a_weight_that_follows_the_tasks_gradient_needs_one(task_weight):
    with pytest.raises(ValueError, match="auto follows the gradient of the task's loss, whose weight is 0 at first"):
        recipe_of(task_weight, weight="auto")
    recipe_of(0.5, weight="auto")
