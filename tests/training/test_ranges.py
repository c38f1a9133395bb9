import dataclasses
from typing import get_args

import pytest

from limbeck.commands.arguments import _kinds
from limbeck.tasks import TASKS, task_kind
from limbeck.training.options import RunOptions
from limbeck.training.ranges import RANGES, check_ranges
from limbeck.training.recipe import Budget

KINDS = ("int", "float", "int | None", "float | None")
NUMBERS = {field.name for field in dataclasses.fields(Budget) if field.type in KINDS}
WRONG = {
    "batch_size": 0,
    "weight_decay": -1.0,
    "clip": 0.0,
    "warmup_epochs": -1.0,
    "ema": 1.0,
    "patience": 0,
    "workers": -1,
}


def test_every_number_of_a_budget_has_a_range():
    assert RANGES.keys() >= NUMBERS


def is_number(kind):
    return kind in (int, float) or any(map(is_number, get_args(kind)))


def test_every_number_of_a_recipe_and_of_a_run_has_a_range():
    made = [getattr(task_kind(name), command) for name in TASKS for command in ("train", "distill")]
    kinds = {name: kind for make in [*made, RunOptions] for name, kind in _kinds(make).items()}
    numbers = {name.replace("-", "_") for name, kind in kinds.items() if is_number(kind)}
    assert {"clip", "images", "size", "data_seed", "scale", "strides", "max_hours"} < numbers
    assert numbers - RANGES.keys() == {"weight", "task_weight"}  # which may be a schedule: see test_resume's neighbours


@pytest.mark.parametrize("name", RANGES)
def test_nan_and_what_has_no_end_are_in_no_range(name):
    for value in (float("nan"), float("inf"), float("-inf")):
        with pytest.raises(ValueError, match=f"{name} is .*; it must be finite and "):
            check_ranges({name: value})


def test_a_number_without_end_is_told_to_be_finite():
    with pytest.raises(ValueError, match="learning_rate is inf; it must be finite and above 0"):
        Budget(learning_rate=float("inf"))


def test_a_seed_that_torch_does_not_take_is_refused_by_name():
    with pytest.raises(ValueError, match=r"seed is 99999999999999999999999; it must be .*at most 1\.84467e"):
        Budget(seed=99999999999999999999999)
    assert Budget(seed=2**64 - 1).seed == 2**64 - 1


@pytest.mark.parametrize(("name", "value"), [*WRONG.items(), ("learning_rate", float("nan")), ("clip", -1.0)])
def test_a_number_out_of_its_range_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} is .*; it must be "):
        Budget(**{name: value})


def test_a_warm_up_longer_than_the_run_is_refused():
    with pytest.raises(ValueError, match="more than the 10 epochs"):
        Budget(epochs=10, warmup_epochs=1000)


def test_numbers_in_groups_and_tuples_are_looked_at():
    with pytest.raises(ValueError, match=r"short_side is \(800, 0\); it must be 1 or more"):
        check_ranges({"data": Sides((800, 0))})
    with pytest.raises(ValueError, match="max_hours is 0; it must be above 0"):
        check_ranges({"options": RunOptions(max_hours=0)})
    with pytest.raises(ValueError, match=r"label_smoothing is 1\.0; it must be 0 or more, and below 1"):
        check_ranges({"label_smoothing": 1.0})
    check_ranges({"size": None, "images": 5, "seed": -3, "flip": 1.0})


@dataclasses.dataclass(frozen=True)
class Sides:
    short_side: tuple[int, ...]
