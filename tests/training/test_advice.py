import dataclasses

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from limbeck import Distiller, Match, conv1x1
from limbeck.tasks.classification import recipe as classification
from limbeck.training.advice import advise_on_gradients, advise_on_grids, advise_on_teacher
from limbeck.training.loop import train
from limbeck.training.preflight import preflight
from limbeck.training.recipe import Budget
from limbeck.training.step import ADVISED
from tests.networks import convnet, images


def advice_on(student, teacher):
    return " ".join(advise_on_grids(torch.zeros(2, 3, *student), torch.zeros(2, 5, *teacher)))


def test_a_teachers_map_of_one_position_is_pointed_out_before_the_run():
    assert "one position" in advice_on((4, 4), (1, 1))
    teacher = nn.Sequential(convnet(8, seed=1)[:4], nn.AdaptiveAvgPool2d(1))
    match = Match("body", "1", nn.MSELoss(), projector=conv1x1)
    (row,) = preflight(Distiller(convnet(4), teacher, [match], example=(images(),)), (images(),))
    assert "one position" in str(row)


@pytest.mark.parametrize(("student", "teacher"), [((32, 32), (3, 3)), ((2, 2), (20, 2)), ((3, 30), (3, 3))])
def test_grids_more_than_eight_times_apart_are_pointed_out(student, teacher):
    assert "more than 8 times" in advice_on(student, teacher)


@pytest.mark.parametrize(("student", "teacher"), [((16, 16), (2, 2)), ((2, 2), (16, 16)), ((7, 7), (7, 7))])
def test_nearer_grids_tokens_and_vectors_get_no_advice(student, teacher):
    assert advice_on(student, teacher) == ""
    assert advise_on_grids(torch.zeros(2, 90, 3), torch.zeros(2, 1, 3)) == ()
    assert advise_on_grids(torch.zeros(2, 3), torch.zeros(2, 3)) == ()


def deep(activation, depth=40):
    torch.manual_seed(0)
    layers = [layer for _ in range(depth) for layer in (nn.Linear(16, 16), activation())]
    return nn.Sequential(*layers, nn.Linear(16, 4))


def gradients_of(student):
    loss = nn.functional.cross_entropy(student(torch.randn(8, 16)), torch.arange(8) % 4)
    loss.backward()
    return advise_on_gradients(student, loss)


def test_a_student_whose_gradient_vanishes_is_pointed_out_and_a_sound_one_is_not():
    assert "hardly reaches" in gradients_of(deep(nn.Sigmoid))[0]
    assert gradients_of(deep(nn.ReLU, depth=3)) == ()


def test_a_student_ahead_of_its_teacher_is_pointed_out_and_one_behind_is_not():
    assert "top1 0.8000 and 0.7000" in advise_on_teacher({"top1": 0.8}, {"top1": 0.7}, "top1")
    assert advise_on_teacher({"top1": 0.6}, {"top1": 0.7}, "top1") == ""
    assert advise_on_teacher({"top1": 0.6}, {}, "top1") == ""  # the teacher was not measured


def test_branches_that_start_from_zeros_are_no_reason_for_advice(tmp_path, capsys):
    budget = Budget(batch_size=16, max_steps=ADVISED + 2, workers=0)
    recipe = classification.train(classification.Data("digits", images=64), "timm:test_resnet", size=16, budget=budget)
    train(recipe, tmp_path)
    assert f"step {ADVISED + 2}" in capsys.readouterr().out
    assert "hardly reaches" not in (tmp_path / "console.log").read_text()


@pytest.mark.parametrize("clip", [None, 5.0])
def test_a_gradient_that_vanishes_is_seen_under_a_loss_scale_too(tmp_path, monkeypatch, clip):
    accelerator = Accelerator(cpu=True)
    accelerator.scaler, accelerator.native_amp = torch.amp.GradScaler("cpu"), True
    monkeypatch.setattr(Accelerator, "mixed_precision", "fp16")  # which on a CPU it refuses
    monkeypatch.setattr("limbeck.training.loop.make_accelerator", lambda *_: accelerator)
    budget = Budget(batch_size=16, max_steps=ADVISED + 2, workers=0, clip=clip)
    recipe = classification.train(classification.Data("digits", images=64), "timm:test_resnet", size=16, budget=budget)
    student = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 16), *deep(nn.Sigmoid, 20)[:-1], nn.Linear(16, 10))
    train(dataclasses.replace(recipe, student=student), tmp_path)
    assert (tmp_path / "console.log").read_text().count("hardly reaches") == 1
