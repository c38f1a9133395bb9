"""How runs are started and gone on with from the command line."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from safetensors.torch import save_file

from limbeck.cli import main
from limbeck.commands.record import version_of
from limbeck.commands.words import absolute
from limbeck.models.run_folder import RunFolder, read_card
from limbeck.training import training
from tests.runs import equal, log_of, mistake, weights
from tests.training.test_loop import NETS, stop_after

SMALL = ["--data", "digits", "--size", "8", "--augment", "none", "--workers", "0", "--images", "128"]
SMALL += ["--batch-size", "32"]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    run = tmp_path_factory.mktemp("teacher") / "run"
    main(["train", "classification", *SMALL, "--model", f"{NETS}:big", "--epochs", "1", "--out", str(run)])
    return run


def distil(teacher, out, *more):
    models = ["--teacher", str(teacher), "--no-teacher-check", "--student", f"{NETS}:small"]
    return ["distill", "classification", *SMALL, *models, "--epochs", "2", "--out", str(out), *more]


@pytest.fixture
def stopped(teacher, tmp_path, monkeypatch):
    """A run that was stopped after three of its steps, of a teacher that lies beside it."""
    shutil.copytree(teacher, tmp_path / "teacher")
    stop_after(monkeypatch, 3)
    with pytest.raises(SystemExit) as stop:
        main(distil(tmp_path / "teacher", tmp_path / "run"))
    assert stop.value.code == 128 + signal.SIGTERM
    monkeypatch.undo()
    return tmp_path / "run"


def test_a_stopped_run_says_how_its_own_command_goes_on_with_it(tmp_path, monkeypatch, capsys):
    run = tmp_path / "a run"
    stop_after(monkeypatch, 2)
    with pytest.raises(SystemExit):
        main(["train", "classification", *SMALL, "--model", f"{NETS}:big", "--epochs", "1", "--out", str(run)])
    monkeypatch.undo()
    said = f"go on with: limbeck train '{run}' --resume"
    assert f"stopped after step 2; {said}" in (run / "console.log").read_text()
    assert said in mistake(["evaluate", str(run)], capsys)
    assert f"go on with limbeck train '{run}' --resume, and" in mistake(["train", str(run)], capsys)
    main(["train", str(run), "--resume"])
    assert (run / "student-last.safetensors").exists()
    assert RunFolder(tmp_path).going_on() == "the same call with RunOptions(resume=True)"  # of one in Python


def test_a_stopped_run_ends_with_status_0_where_that_is_asked_for(teacher, tmp_path, monkeypatch):
    stop_after(monkeypatch, 3)
    main(distil(teacher, tmp_path / "run", "--zero-when-stopped"))
    assert not (tmp_path / "run" / "student-last.safetensors").exists()


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--learning-rate", "0.5"], "--learning-rate (was the default, is 0.5)"),
        (["--method", "KD"], "--method (was the default, is KD)"),
        (["--clip", "None"], "--clip (was 5.0, is None)"),
        (["--student", f"{NETS}:big"], "--student (was"),
        (["--data-seed", "1"], "--data-seed (was 0, is 1)"),
    ],
)
def test_a_run_is_not_resumed_with_arguments_that_would_change_it(stopped, capsys, more, named):
    before = (stopped / "recipe.json").read_bytes()
    error = mistake(["distill", str(stopped), "--resume", *more], capsys)
    assert f"{stopped} was started with other {named}" in error
    assert (stopped / "recipe.json").read_bytes() == before


@pytest.mark.parametrize("command", [["train", "classification", "--model"], ["train", "semantic", "--model"]])
def test_a_run_is_not_resumed_by_another_command(stopped, capsys, command):
    data = ["--data", "digits", "--out", str(stopped), "--resume"]
    error = mistake([*command, f"{NETS}:small", *data], capsys)
    named = f"{stopped} is a run of limbeck distill classification, not of limbeck {command[0]} {command[1]}"
    assert named in error


def test_a_run_is_resumed_with_more_epochs_and_other_workers_which_its_record_then_tells(stopped, capsys):
    main(["distill", str(stopped), "--resume", "--epochs", "3", "--workers", "1"])
    assert "extended from 8 to 12 steps" in capsys.readouterr().out
    record = json.loads((stopped / "recipe.json").read_text())
    assert (record["arguments"]["budget"]["epochs"], record["arguments"]["budget"]["workers"]) == (3, 1)
    assert len(record["resumed"]) == 1
    assert log_of(stopped, "val")[-1]["epoch"] == 3


def test_a_run_is_not_resumed_with_another_teacher_but_with_one_that_was_moved(stopped, teacher, tmp_path, capsys):
    (tmp_path / "teacher").rename(tmp_path / "moved")
    (tmp_path / "teacher").mkdir()
    other = weights(teacher, "student.safetensors")
    card = {"limbeck": json.dumps(read_card(teacher / "student.safetensors"))}
    save_file({name: value + 1 for name, value in other.items()}, tmp_path / "teacher" / "student.safetensors", card)
    error = mistake(["distill", str(stopped), "--resume"], capsys)
    assert "the weights of teacher" in error
    assert "sha256 differs" in error
    main(["distill", str(stopped), "--resume", "--teacher", str(tmp_path / "moved")])
    assert (stopped / "student-last.safetensors").is_file()


def test_relative_paths_are_stored_so_that_a_run_is_resumed_and_evaluated_from_anywhere(
    teacher, tmp_path, monkeypatch, capsys
):
    shutil.copytree(teacher, tmp_path / "teacher")
    shutil.copy(NETS, tmp_path / "nets.py")
    monkeypatch.chdir(tmp_path)
    stop_after(monkeypatch, 3)
    words = distil("teacher", "run")
    words[words.index(f"{NETS}:small")] = "nets.py:small"
    with pytest.raises(SystemExit):
        main(words)
    monkeypatch.undo()
    main(["distill", str(tmp_path / "run"), "--resume"])
    main(["evaluate", str(tmp_path / "run")])
    arguments = json.loads((tmp_path / "run" / "recipe.json").read_text())["arguments"]
    assert arguments["teacher"] == str(tmp_path / "teacher")
    assert arguments["student"] == f"{tmp_path}/nets.py:small"
    assert arguments["data"]["data"] == "digits"


def test_a_word_that_is_no_path_stays_though_a_file_is_called_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("digits", "teacher"):
        (tmp_path / name).mkdir()
    assert absolute("digits") == "digits"
    assert absolute("teacher") == str(tmp_path / "teacher")


def test_an_unfinished_run_as_teacher_is_named(stopped, tmp_path, capsys):
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    shutil.copy(tmp_path / "teacher" / "student.safetensors", unfinished)
    main(distil(unfinished, tmp_path / "other", "--dry-run"))
    assert f"teacher {unfinished} is a run that is not finished" in capsys.readouterr().out
    assert not (tmp_path / "other").exists()


def test_a_package_without_metadata_is_recorded_as_not_installed():
    assert version_of("no-such-package") == "not installed"


def test_a_run_needs_no_git(teacher, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError):
        subprocess.run(["git"], check=False)
    main(distil(teacher, tmp_path / "run"))
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["commit"] is None


@pytest.mark.parametrize("harm", [lambda text: text[:-9], lambda text: '{"arguments": {}}'])
def test_a_damaged_record_is_told_by_name(stopped, capsys, harm):
    record = stopped / "recipe.json"
    record.write_text(harm(record.read_text()))
    assert f"{record} is damaged" in mistake(["distill", str(stopped), "--resume"], capsys)


def test_a_damaged_student_is_told_by_name(stopped, tmp_path, capsys):
    student = tmp_path / "teacher" / "student.safetensors"
    student.write_bytes(student.read_bytes()[:100])
    assert f"{student} is damaged" in mistake(distil(tmp_path / "teacher", tmp_path / "other"), capsys)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("distill classification --lr 1", "no option --lr; did you mean --learning-rate?"),
        ("distill classification --epoch 1", "no option --epoch; did you mean --epochs"),
        (
            "distill classification --lr 1 --epochs 1 --nothing --epoch=2 --lr 2",
            "no options --lr (did you mean --learning-rate?), --nothing, --epoch (did you mean --epochs",
        ),
        ("distill classification --epochs 1 --epochs=2", "--epochs is there twice; which one is meant?"),
        ("distill classification --resume --no-resume", "--resume is there twice"),
        ("evaluate run --batch-size 2 --batch-size 4", "--batch-size is there twice; which one is meant?"),
        ("evaluate run --batchsize 2", "no option --batchsize; did you mean --batch-size?"),
        ("predict run photos --out one --out=two", "--out is there twice"),
        ("layers timm:resnet18 --size 32 --size 64", "--size is there twice"),
        ("export run a.onnx --batch 1 --batch 2", "--batch is there twice"),
        ("report run --out a.html --out b.html", "--out is there twice"),
        ("demo --out a --out b", "--out is there twice"),
        ("methods --nothing", "no option --nothing; --help lists them"),
        ("compress classification run --seed 1 --seed 2", "--seed is there twice"),
        ("train classification --clip -1", "clip is -1; it must be above 0, or None for no clipping"),
        ("train classification --weight-decay=nan", "weight_decay is nan; it must be finite and 0 or more"),
        ("train semantic --images -3", "images is -3; it must be 1 or more"),
        ("train semantic --scale 1 inf", "scale is (1, inf); it must be finite and above 0"),
        ("train detection --short-side 64 0", "short_side is (64, 0); it must be 1 or more"),
        ("train semantic --crop 32", "--crop takes 2 values, not 1: 32"),
        ("train semantic --scale 1 2 3", "--scale takes 2 values, not 3: 1 2 3"),
        ("distill classification --optimizer adam", "--optimizer is one of sgd, adamw, not adam; did you mean adamw?"),
        ("evaluate run --weights lst", "--weights is one of best, last, not lst; did you mean last?"),
        ("train detection --split=vla", "--split is one of val, test, None, not vla; did you mean val?"),
        ("distill clasification --epochs 1", "did you mean classification?"),
        ("distil classification", "no command 'distil'; did you mean distill?"),
    ],
)
def test_a_misspelt_option_recipe_or_command_is_told_with_the_nearest(words, message, capsys):
    assert message in mistake(words.split(), capsys)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("1", "--student-layer 1: it gives 2 tensors for an image; name one that gives one"),
        ("5.0", "--student-layer 5.0: it gives no tensors for an image"),
        ("0", "layer 0 of Sequential was changed in place by a later module, such as ReLU(inplace=True); match that"),
    ],
)
def test_a_layer_that_cannot_be_read_is_told_with_another_to_name(teacher, tmp_path, capsys, layer, message):
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n\n\ndef mine(num_classes):\n    act = nn.ReLU(inplace=True)\n"
        "    body = nn.Conv2d(3, 4, 3), act, nn.Conv2d(4, 4, 3), act, nn.AdaptiveAvgPool2d(1), nn.Flatten()\n"
        "    body[5].add_module('0', nn.ReLU())\n"
        "    return nn.Sequential(*body, nn.Linear(4, num_classes))\n"
    )
    layers = ["--student-layer", layer, "--teacher-layer", "2"]
    words = distil(teacher, tmp_path / "run", *layers)
    words[words.index("--student") + 1] = f"{tmp_path}/mine.py:mine"
    assert message in mistake(words, capsys)


@pytest.mark.parametrize("command", ["distill", "train"])
def test_a_command_lists_its_recipes(command, capsys):
    main([command, "--help"])
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("classification", "detection", "instance", "semantic", "RUN --resume"))


def test_ctrl_c_before_the_first_step_ends_with_status_130_and_leaves_nothing(teacher, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training, "build", lambda *_: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(SystemExit) as stop:
        main(distil(teacher, tmp_path / "run"))
    assert stop.value.code == 130
    assert "interrupted" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_killed_run_is_bitwise_the_same_once_it_is_resumed_by_its_folder(stopped, teacher, tmp_path):
    main(["distill", str(stopped), "--resume"])
    main(distil(teacher, tmp_path / "whole"))
    assert equal(weights(stopped), weights(tmp_path / "whole"))
    assert Path(stopped / "console.log").read_text().count("resumed from") == 1
