import json

import pytest
import torch

from limbeck.cli import main
from limbeck.data.inputs import Inputs
from limbeck.tasks.classification.models import build_classifier
from limbeck.training.record import save_student
from tests.places import ROOT
from tests.runs import mistake

NETS = ROOT / "tests" / "nets.py"


@pytest.fixture
def teacher(tmp_path):
    """A run of a classifier of three classes, which the digits do not have."""
    classes = ["cat", "dog", "emu"]
    card = {"task": "classification", "model": f"{NETS}:big", "classes": classes, "load_size": 8, **vars(Inputs(8))}
    save_student(build_classifier(f"{NETS}:big", classes).module, tmp_path / "teacher" / "student.safetensors", card)
    return tmp_path / "teacher"


def distil(out, *more):
    start = ["distill", "classification", "--data", "digits", "--size", "8", "--workers", "0", "--images", "64"]
    return [*start, "--batch-size", "32", "--student", f"{NETS}:small", "--max-steps", "2", "--out", str(out), *more]


def test_the_features_of_a_teacher_of_other_classes_are_followed_and_its_scores_refused(teacher, tmp_path, capsys):
    run = tmp_path / "run"
    main(distil(run, "--teacher", str(teacher)))
    assert "the teacher knows other classes (cat, dog, emu), so it is not measured" in capsys.readouterr().out
    main(["evaluate", str(run), "--json"])
    shown = capsys.readouterr()
    assert list(json.loads(shown.out)["models"]) == [str(run)]
    assert "knows other classes (cat, dog, emu), so it is not measured" in shown.err
    assert "nets.py:big is no run: name folders of runs" in mistake(["evaluate", str(run), f"{NETS}:big"], capsys)
    for scores in (["--method", "KD"], ["--method", "Cosine", "--layers", "output"]):
        error = mistake(distil(tmp_path / "other", "--teacher", str(teacher), *scores), capsys)
        assert "compares class scores, but the data has the classes 0, 1, 2, 3, 4, and the teacher knows other" in error


def test_weights_of_a_teacher_for_other_classes_leave_it_without_scores(tmp_path, capsys):
    torch.save(build_classifier(f"{NETS}:big", ["cat", "dog", "emu"]).module.state_dict(), tmp_path / "three.pth")
    models = ["--teacher", f"{NETS}:big", "--teacher-size", "8", "--teacher-weights", str(tmp_path / "three.pth")]
    main(distil(tmp_path / "run", *models, "--dry-run"))
    assert "the teacher has no scores for the classes, so it is not measured" in capsys.readouterr().out
    assert "compares class scores" in mistake(distil(tmp_path / "run", *models, "--method", "KD"), capsys)


def test_a_teacher_without_a_head_is_followed_and_not_measured(tmp_path, capsys):
    body = "from torch import nn\n\n\ndef body():\n    return nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.ReLU())\n"
    (tmp_path / "body.py").write_text(body)
    main(distil(tmp_path / "run", "--teacher", f"{tmp_path}/body.py:body", "--teacher-size", "8"))
    main(["evaluate", str(tmp_path / "run"), "--json"])
    shown = capsys.readouterr().err
    assert "body.py:body has no scores for the classes" in shown
    assert "so it is not measured" in shown
