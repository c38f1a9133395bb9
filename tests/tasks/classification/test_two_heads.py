"""Students with a distillation token: what each head learns from, and what the two say together."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from limbeck import Distiller
from limbeck.cli import main
from limbeck.data.inputs import Inputs
from limbeck.methods.pairing import make_matches
from limbeck.models.checkpoints import load_weights
from limbeck.models.model import Model
from limbeck.tasks.classification.task import Classification
from tests.nets import small, two_heads

NETS = Path(__file__).parents[2] / "nets.py"
CLASSES = [str(digit) for digit in range(10)]
LABELS = torch.arange(4)


@pytest.fixture
def pair():
    torch.manual_seed(0)
    return two_heads(10), small(10)


def distiller_of(student, teacher, *methods):
    models = Model(student, Inputs(8), CLASSES), Model(teacher, Inputs(8), CLASSES)
    matches = [match for method in methods for match in make_matches(method, *models)]
    return Distiller(student, teacher, matches, example=(torch.randn(2, 3, 8, 8),))


def test_labels_reach_the_class_tokens_head_alone_and_the_teacher_the_other(pair):
    student, teacher = pair
    distiller, images = distiller_of(student, teacher, "DeiT").train(), torch.randn(4, 3, 8, 8)
    out = distiller(images)
    loss = Classification(10, Inputs(8)).loss(out.output, {"label": LABELS})
    torch.testing.assert_close(loss, F.cross_entropy(out.output[0], LABELS))
    heads = student.head.weight, student.head_dist.weight
    by_labels = torch.autograd.grad(loss, heads, allow_unused=True, retain_graph=True)
    by_teacher = torch.autograd.grad(out.loss, heads, allow_unused=True)
    assert by_labels[0].any()
    assert by_labels[1] is by_teacher[0] is None
    assert by_teacher[1].any()


def test_predictions_are_the_mean_of_both_heads(pair):
    student, teacher = pair
    distiller, images = distiller_of(student, teacher, "DeiT"), torch.randn(4, 3, 8, 8)
    two = torch.stack(distiller.train()(images).output)
    torch.testing.assert_close(distiller.eval()(images).output, two.mean(0))


def test_another_method_reads_the_labels_head_beside_it(pair):
    distiller = distiller_of(*pair, "DeiT", "KD").train()
    images = torch.randn(4, 3, 8, 8)
    out = distiller(images)
    _, kd = distiller.matches
    torch.testing.assert_close(out.losses["KD:output"], kd(out.output[0], distiller.teacher(images)[kd.teacher[0]]))


def test_a_file_for_other_classes_leaves_both_heads_out(tmp_path, pair):
    save_file(two_heads(3).state_dict(), tmp_path / "three.safetensors")
    left = load_weights(pair[0], str(tmp_path / "three.safetensors"), new_head=True)
    assert left == ["head.bias", "head.weight", "head_dist.bias", "head_dist.weight"]


def test_the_command_line_trains_and_evaluates_such_a_student(tmp_path, capsys):
    run = str(tmp_path / "a run")
    small_data = ["--data", "digits", "--size", "8", "--images", "64", "--batch-size", "32", "--workers", "0"]
    models = ["--teacher", f"{NETS}:big", "--teacher-size", "8", "--no-teacher-check", "--student", f"{NETS}:two_heads"]
    main(["distill", "classification", *small_data, *models, "--method", "DeiT", "--max-steps", "2", "--out", run])
    assert "DeiT:head_dist: head_dist (10,) follows output (10,)" in capsys.readouterr().out
    main(["evaluate", run, "--data", "digits"])
    assert "top1" in capsys.readouterr().out
