"""What a run writes down for a page about it, and that none of it changes what is trained."""

import json

import pytest
import torch
from safetensors import safe_open
from torch import nn

from limbeck.core.distiller import Distiller
from limbeck.core.match import Match
from limbeck.criteria import ChannelTransform
from limbeck.models.run_folder import RunFolder
from limbeck.training.by_class import ByClass, shares
from limbeck.training.feature_record import principal_axes, similarity
from limbeck.training.loop import train
from limbeck.training.step import TrainStep
from limbeck.training.step_cost import counting_kept
from limbeck.training.training import Training
from tests.runs import equal, log_of, weights
from tests.training.test_loop import DATA, budget, distilled, teacher  # noqa: F401


@pytest.fixture(scope="module")
def run(teacher, tmp_path_factory):  # noqa: F811
    folder = RunFolder(tmp_path_factory.mktemp("found") / "run")
    train(distilled(teacher, teacher_check=True, budget=budget(epochs=2)), folder.path)
    return folder


def test_the_matches_and_the_teacher_are_in_the_folder(run):
    (match,) = json.loads(run.matches.read_text())
    assert match["match"] == "ChannelTransform:2"
    assert match["weight"] == "auto"
    (teacher,) = log_of(run.path, "teacher")  # noqa: F811
    assert teacher["top1"] > 0.8


def test_an_evaluation_is_written_down_class_by_class(run):
    lines = [json.loads(line) for line in run.classes.read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["teacher", "student", "student"]
    last, metrics = lines[-1], log_of(run.path, "val")[-1]
    assert len(last["names"]) == len(last["values"]) == 10
    right = sum(count for true, said, count in last["confusion"] if true == said)
    assert right / sum(count for *_, count in last["confusion"]) == pytest.approx(metrics["top1"])


def test_a_step_is_split_into_its_parts(run):
    (cost,) = log_of(run.path, "cost")
    assert all(cost[f"{part}_ms"] > 0 for part in ("student", "teacher", "criteria"))
    assert cost["student_mib"] > 0
    assert cost["teacher_mib"] == 0
    assert log_of(run.path, "memory")[-1]["host_mib"] > 50


def test_features_are_there_before_and_after_on_the_same_axes(run):
    with safe_open(run.features, "pt") as file:
        names, notes = set(file.keys()), file.metadata()
        before, after, target = (file.get_tensor(f"{when}/0/11").float() for when in ("before", "after", "teacher"))
    assert {f"image/{index}" for index in range(12)} <= names
    assert before.shape == after.shape == target.shape == (3, *target.shape[1:])
    assert (after - target).norm() < (before - target).norm()
    similar = [float(notes[f"cka/{when}/2/to/2"]) for when in ("before", "after")]
    assert 0 <= similar[0] <= 1
    assert 0 <= similar[1] <= 1


def test_what_is_recorded_changes_nothing(teacher, run, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(TrainStep, "cost", lambda *_: {})
    monkeypatch.setattr("limbeck.training.findings.Findings.at_start", lambda _: None)
    train(distilled(teacher, teacher_check=True, budget=budget(epochs=2)), tmp_path)
    assert equal(weights(tmp_path), weights(run.path))


def test_a_run_ends_where_its_features_cannot_be_read_and_says_what_is_missing(teacher, tmp_path, monkeypatch, capsys):  # noqa: F811
    folder, plain = RunFolder(tmp_path), Training.finish

    def finish(training):
        folder.features.write_bytes(folder.features.read_bytes()[:-100])
        plain(training)

    monkeypatch.setattr(Training, "finish", finish)
    assert train(distilled(teacher, budget=budget(epochs=1)), folder.path).finished
    assert folder.is_finished()
    assert f"features after the training are not added to {folder.features}: Safetensor" in capsys.readouterr().out


def test_similarity_is_1_of_a_rotated_feature_and_small_of_another():
    torch.manual_seed(0)
    maps = [torch.randn(1, 4, 16, 16) for _ in range(3)]
    rotation, _ = torch.linalg.qr(torch.randn(4, 4))
    assert similarity([(each, 3 * torch.einsum("bchw,cd->bdhw", each, rotation)) for each in maps]) == pytest.approx(1)
    assert similarity([(each, torch.randn(1, 8, 16, 16)) for each in maps]) < 0.1
    assert similarity([(torch.ones(1, 10), torch.ones(1, 10))]) is None


def test_the_first_axis_is_the_one_along_which_features_vary():
    feature = torch.zeros(5, 8, 8)
    feature[3] = torch.linspace(-1, 1, 64).reshape(8, 8)
    mean, axes = principal_axes([feature])
    assert mean.tolist() == pytest.approx([0] * 5, abs=1e-6)
    assert axes[:, 0].tolist() == pytest.approx([0, 0, 0, 1, 0], abs=1e-6)


def test_a_student_feature_is_seen_as_its_criterion_compares_it():
    match = Match("0", "0", ChannelTransform())
    student, teacher = (nn.Sequential(nn.Conv2d(3, width, 1)) for width in (4, 6))  # noqa: F811
    Distiller(student, teacher, [match], example=(torch.randn(2, 3, 5, 5),))
    feature, target = torch.randn(2, 4, 5, 5), torch.randn(2, 6, 5, 5)
    expected = (match.compared(feature, target) - target).square().sum() / 2
    torch.testing.assert_close(match(feature, target), expected)


def test_what_is_kept_for_the_backward_pass_is_counted_once():
    one = torch.randn(256, 256, requires_grad=True)
    with counting_kept() as kept:
        (one.exp() * one).sum()
    assert sum(kept.values()) == 2 * 256 * 256 * 4


def test_a_class_that_is_not_there_has_no_share():
    counts = torch.tensor([[3, 1, 0], [0, 2, 0], [0, 0, 0]])
    assert shares(counts) == [0.75, 1.0, None]
    assert ByClass("accuracy", shares(counts), counts).entry()["confusion"] == [[0, 0, 3], [0, 1, 1], [1, 1, 2]]
