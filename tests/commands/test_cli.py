import json
import re
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from limbeck.cli import main
from limbeck.data.inputs import Inputs
from limbeck.tasks.detection.models import build_detector
from limbeck.training.record import save_student
from tests.places import ROOT
from tests.runs import cells, mistake

NETS = ROOT / "tests" / "nets.py"
SMALL = ("--data", "digits", "--augment", "shift", "--size", "8", "--workers", "0", "--batch-size", "32")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A teacher, a student alone, and a distilled student, made as a user would."""
    folder = tmp_path_factory.mktemp("cli")
    teacher, alone, distilled = (str(folder / name) for name in ("teacher", "alone", "distilled"))
    main(["train", "classification", *SMALL, "--model", f"{NETS}:big", "--epochs", "6", "--out", teacher])
    student = [*SMALL, "--images", "320", "--epochs", "2"]
    main(["train", "classification", *student, "--model", f"{NETS}:small", "--out", alone])
    small = f"{NETS}:small"
    main(["distill", "classification", *student, "--teacher", teacher, "--student", small, "--out", distilled])
    return folder


def test_a_run_records_arguments_versions_and_hashes(runs):
    record = json.loads((runs / "distilled" / "recipe.json").read_text())
    assert record["uses"] == ["ChannelTransform"]
    assert record["arguments"]["budget"]["epochs"] == 2
    assert record["versions"]["torch"]
    assert len(record["sha256"]["teacher"]) == 64


def test_the_papers_of_a_run_are_cited(runs, capsys):
    main(["cite", str(runs / "distilled")])
    assert "2303.13212" in capsys.readouterr().out


def test_a_method_that_does_not_exist_is_refused_in_one_line(runs, tmp_path, capsys):
    models = ["--teacher", str(runs / "teacher"), "--student", f"{NETS}:small"]
    with pytest.raises(SystemExit):
        main(
            ["distill", "classification", *SMALL, *models, "--method", "ChanelTransform", "--out", str(tmp_path / "x")]
        )
    said = capsys.readouterr().err
    assert said.startswith("limbeck: no method 'ChanelTransform', did you mean ChannelTransform?")
    assert len(said.splitlines()) == 1


def test_evaluate_shows_teacher_student_and_student_alone_as_their_runs_measured_them(runs, capsys):
    main(["evaluate", str(runs / "distilled"), str(runs / "alone")])
    shown = capsys.readouterr().out
    rows = {line.split("│")[1].split()[-1]: line for line in shown.splitlines() if line.startswith("│")}
    for name in ("teacher", "distilled", "alone"):
        log = (runs / name / "metrics.jsonl").read_text().splitlines()
        best = max(entry["top1"] for entry in map(json.loads, log) if entry["kind"] == "val")
        assert f"{best:.4f}" in rows[str(runs / name)]
    assert "agreement" in shown


def test_a_run_that_no_command_made_is_evaluated_on_data_that_are_named(runs, tmp_path, capsys):
    (tmp_path / "student.safetensors").write_bytes((runs / "alone" / "student.safetensors").read_bytes())
    assert "pass --data" in mistake(["evaluate", str(tmp_path)], capsys)
    rows = []
    for arguments in ([str(runs / "alone")], [str(tmp_path), "--data", "digits"]):
        main(["evaluate", *arguments])
        rows.append(cells(capsys.readouterr().out)[-1][1:])
    assert rows[0] == rows[1]


def test_layers_lists_paths_shapes_and_strides_and_how_two_models_meet(capsys):
    main(["layers", f"{NETS}:small", "--size", "16", "--beside", f"{NETS}:big", "--beside-size", "32", "--depth", "1"])
    shown = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines() if line.startswith("│")]
    assert ["2", "map", "(8, 8, 8)", "2"] in rows
    assert "2 (8x8) and 2 (16x16) meet at 16x16: the student's is resized" in shown


def test_layers_says_where_a_class_token_is_read(capsys):
    main(["layers", "timm:test_vit", "--beside", "timm:test_resnet", "--depth", "1"])
    shown = capsys.readouterr().out
    assert "classified by its class token alone, which ChannelTransform reads instead of the map\n" in shown
    assert "norm:class and layer4:mean meet, a class token or the mean of a map each\n" in shown


def test_layers_lists_the_backbone_and_the_levels_of_a_detector(capsys):
    main(["layers", "torchvision:retinanet/timm:test_efficientnet", "--size", "64", "--depth", "4"])
    shown = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines() if line.startswith("│")]
    assert ["backbone.body.blocks.2", "map", "(32, 8, 8)", "8"] in rows
    assert all(row[0].startswith("backbone.") for row in rows), "no head, which runs once for each level"
    assert "levels of the pyramid, by stride: 8, 16, 32, 64, 128\n" in shown
    assert "last feature map of the backbone: backbone.body.blocks.4\n" in shown


@pytest.mark.parametrize(
    ("command", "usage"),
    [
        ("predict", "RUN IMAGE [IMAGE ...]"),
        ("export", "RUN FILE"),
        ("evaluate", "RUN [RUN ...]"),
        ("report", "RUN [RUN ...]"),
        ("cite", "RUN"),
        ("layers", "MODEL"),
    ],
)
def test_help_names_what_is_not_an_option_as_the_user_does(command, usage, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert f" {usage}" in capsys.readouterr().out.partition("\n\n")[0]


@pytest.mark.parametrize(
    ("teacher", "meeting"),
    [
        ("torchvision:fasterrcnn/timm:test_vit", "levels meet at the strides 8, 16, 32\n"),
        ("timm:test_resnet", "backbone.body.blocks.4 (2x2) and layer4 (3x3) meet at 3x3: the student's is resized"),
    ],
)
def test_layers_says_how_a_detector_meets_another_model(capsys, teacher, meeting):
    detector = "torchvision:ssdlite/timm:test_efficientnet"
    main(["layers", detector, "--size", "64", "--beside", teacher, "--beside-size", "96"])
    shown = capsys.readouterr().out
    assert f"{detector} at 64 px" in shown
    assert f"{teacher} at 96 px" in shown
    assert meeting in shown


def test_layers_lists_a_run_of_a_detector(capsys, tmp_path):
    name, classes = "torchvision:fcos/timm:test_efficientnet", ["circle", "square"]
    card = {"task": "detection", "model": name, "classes": classes, **asdict(Inputs())}
    save_student(build_detector(name, classes).module, tmp_path / "student.safetensors", card)
    for run in (tmp_path, tmp_path / "student.safetensors"):
        main(["layers", str(run), "--size", "64", "--depth", "3"])
        assert "levels of the pyramid, by stride: 8, 16, 32, 64, 128\n" in capsys.readouterr().out


def test_layers_of_a_detector_want_a_size_that_is_not_padded(capsys):
    with pytest.raises(SystemExit):
        main(["layers", "torchvision:fcos/timm:test_efficientnet", "--size", "100"])
    assert "multiples of 32, not 100" in " ".join(capsys.readouterr().err.split())


def test_a_run_is_resumed_by_its_folder(runs, capsys):
    main(["distill", str(runs / "distilled"), "--resume"])
    assert "is finished already" in capsys.readouterr().out


def test_a_recipe_of_ones_own_is_the_function_named_like_its_file(tmp_path, capsys):
    (tmp_path / "mine.py").write_text(
        "from limbeck.training.recipe import Budget, Recipe\n"
        "from limbeck.tasks.classification import recipe as classification\n\n"
        "def mine(images: int = 64) -> Recipe:\n"
        '    """My own.\n\n    Args:\n        images: How many.\n    """\n'
        '    data = classification.Data("digits", images=images, augment="none")\n'
        f'    return classification.train(data, "{NETS}:small", size=8, budget=Budget(1, 32, workers=0))\n'
    )
    main(["distill", f"{tmp_path}/mine.py", "--images", "96", "--out", str(tmp_path / "run")])
    assert "96 training images" in capsys.readouterr().out
    assert (tmp_path / "run" / "student.safetensors").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["distil"], "no command 'distil'; did you mean distill? there are distill, train"),
        (
            ["distill", "clasification"],
            "takes a recipe (classification, semantic, detection, instance, FILE.py or FILE.py:FUNCTION) or a run",
        ),
        (["evaluate", "nothing"], "name the folder of a run"),
        (["layers", "timm:resnt18"], "nearest: resnet18"),
        (["layers", f"{NETS}:small", "--size", "-4"], "size is -4; it must be 1 or more"),
        (["layers", f"{NETS}:small", "--size", "0"], "size is 0; it must be 1 or more"),
        (["layers", f"{NETS}:small", "--beside", f"{NETS}:big", "--beside-size", "0"], "beside_size is 0; it must"),
        (
            ["train", "classification", "--data", "nowhere", "--model", "timm:resnet10t", "--out", "nowhere/run"],
            "no folder nowhere; pass a folder of images, cifar10:DIR",
        ),
    ],
)
def test_a_mistake_ends_with_one_line_that_says_the_remedy(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert message in error
    assert error.count("\n") == 1
    assert not Path("nowhere").exists()


def test_a_run_folder_is_not_overwritten(runs, capsys):
    with pytest.raises(SystemExit):
        main(["train", "classification", *SMALL, "--model", f"{NETS}:big", "--out", str(runs / "teacher")])
    assert (
        "holds a run already; go on with --resume, --overwrite it, or choose another --out" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (["train", "classification"], "--augment"),
        (["distill", "classification"], "--teacher-weights"),
        (["distill", "semantic"], "--student-backbone"),
        (["distill", "detection"], "--inherit"),
        (["evaluate"], "--batch-size"),
        (["layers"], "--beside"),
        (["demo"], "--out"),
    ],
)
def test_every_command_explains_its_options(command, option, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert option in shown
    assert "Likewise" not in shown, "each option is explained without the one before"


@pytest.mark.parametrize("command", [["predict"], ["export"], ["train", "classification"]])
def test_what_a_command_does_is_told_in_whole_words(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    shown = capsys.readouterr().out.partition("\n\n")[2]
    told = re.split(r"\n\n\W*(?:positional arguments|options)", shown)[0].splitlines()
    assert len(told) >= 2
    assert max(len(line.rstrip()) for line in told) < 60


def test_without_a_command_there_is_an_overview_of_all(capsys):
    main([])
    shown = capsys.readouterr().out
    assert all(f"limbeck {command}" in shown for command in ("train", "distill", "evaluate", "layers", "demo"))


@pytest.mark.skipif(sys.platform == "win32", reason="ends by a status of its own there")
def test_ctrl_c_while_python_ends_gives_no_traceback():
    script = (
        "import atexit, os, signal; from limbeck.cli import main; "
        "atexit.register(os.kill, os.getpid(), signal.SIGINT); main(['mehtods'])"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert ended.returncode == -signal.SIGINT
    assert "did you mean methods?" in ended.stderr
    assert "KeyboardInterrupt" not in ended.stderr
