"""What a run is known by when it is resumed."""

import dataclasses
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from limbeck import Match
from limbeck.training.fingerprint import check_same, fingerprint
from tests.training.test_task_weight import recipe_of


def print_of(criterion):
    return fingerprint(recipe_of(1.0), SimpleNamespace(state_dict=dict, matches=[Match("a", "a", criterion)]))


@pytest.mark.parametrize("declares", [False, True])
def test_other_options_of_a_function_are_other_runs(declares):
    parts = [partial(F.smooth_l1_loss, beta=beta) for beta in (1.0, 2.0)]
    for part in parts if declares else []:
        part.any_shape = True
    one, other = map(print_of, parts)
    with pytest.raises(ValueError, match=r"options of smooth_l1_loss:a \(beta was 1.0, is 2.0\)"):
        check_same(one, other, "run")


def test_another_teacher_is_another_run_wherever_its_weights_come_from():
    teachers = [nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)) for _ in range(2)]
    teachers[1].load_state_dict(teachers[0].state_dict())
    trained = SimpleNamespace(state_dict=dict, matches=[])
    one, same = (fingerprint(dataclasses.replace(recipe_of(1.0), teacher=each), trained) for each in teachers)
    assert one == same
    teachers[1].bfloat16()[1].running_mean += 1
    other = fingerprint(dataclasses.replace(recipe_of(1.0), teacher=teachers[1]), trained)
    with pytest.raises(ValueError, match=r"started with other teacher \(its weights\) \(was \w+, is \w+\)"):
        check_same(one, other, "run")


def test_a_function_of_torch_has_no_options():
    assert print_of(torch.dist)["options of dist:a"] == {"weight": 1.0}
