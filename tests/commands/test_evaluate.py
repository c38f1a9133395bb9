import json
import shutil

import pytest
import torch
from PIL import Image
from torch import nn

from limbeck.cli import main
from limbeck.commands.evaluate import _without_classes
from limbeck.commands.words import absolute, relative
from limbeck.models.cost import cost
from limbeck.tasks import task_kind
from limbeck.training.by_class import ByClass
from limbeck.training.record import save_student
from tests.runs import cells, mistake

CLASSES = ["dark", "light"]


@pytest.fixture
def data(tmp_path):
    """Ten images of each class, which are told by their brightness, in val/ and train/."""
    for part in ("train", "val"):
        for label, shade in zip(CLASSES, (40, 200), strict=True):
            (tmp_path / "data" / part / label).mkdir(parents=True)
            for number in range(5):
                image = Image.new("RGB", (32, 32), (shade + number, shade, shade))
                image.save(tmp_path / "data" / part / label / f"{number}.png")
    return tmp_path / "data"


@pytest.fixture
def run(tmp_path):
    """A run whose best student calls everything dark, and whose last one everything light."""
    card = {"task": "classification", "model": "timm:test_resnet", "classes": CLASSES, "size": 32, "load_size": 32}
    card |= {"mean": [0.5] * 3, "std": [0.5] * 3, "data_seed": 0}
    module = task_kind("classification").build("timm:test_resnet", CLASSES, 32).module
    for name, answer in (("student", 0), ("student-last", 1)):
        with torch.no_grad():
            module.get_classifier().weight.zero_()
            module.get_classifier().bias.copy_(torch.eye(2)[answer])
        save_student(module, tmp_path / "run" / f"{name}.safetensors", card)
    return tmp_path / "run"


def shown(arguments, capsys):
    main(["evaluate", *map(str, arguments), "--json"])
    return json.loads(capsys.readouterr().out)


def test_json_has_the_metrics_of_each_model(run, data, capsys):
    found = shown([run, "--data", data], capsys)
    assert found["images"] == 10
    assert found["models"][str(run)]["top1"] == 0.5


def test_pictures_of_a_classifier_are_refused_before_it_is_measured(run, data, capsys, monkeypatch):
    monkeypatch.setattr("limbeck.tasks.classification.validation.ImageValidation.measure", None)
    assert "--pictures shows masks and boxes" in mistake(
        ["evaluate", str(run), "--data", str(data), "--pictures", "1"], capsys
    )


def test_what_is_measured_on_is_called_by_its_part(run, data, capsys):
    (data / "val").rename(data / "test")
    assert shown([run, "--data", data, "--split", "test"], capsys)["split"] == "test"
    for options, said in (((), "validation images of"), (("--split", "test"), "test images of")):
        main(["evaluate", str(run), "--data", str(data), *options])
        assert capsys.readouterr().out.lstrip().startswith(said)


def test_a_new_test_set_needs_no_training_images_nor_all_classes(run, data, capsys):
    (data / "val").rename(data.parent / "new")
    shutil.rmtree(data)
    dark, light = (data.parent / "new" / name for name in CLASSES)
    assert shown([run, "--val-data", data.parent / "new"], capsys)["images"] == 10
    shutil.rmtree(dark)
    main(["evaluate", str(run), "--val-data", str(data.parent / "new"), "--by-class", "--json"])
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["images"] == 5
    assert found["models"][str(run)]["top1"] == 0  # it calls everything dark
    assert found["by_class"][str(run)]["values"]["light"] == 0
    assert "no image to measure on is of 1 of the 2 classes: dark" in captured.err
    (light.parent / "dim").mkdir()
    assert "no classes of the training images: dim" in mistake(
        ["evaluate", str(run), "--val-data", str(light.parent)], capsys
    )
    (light.parent / "dim").rmdir()
    (data / "test").mkdir(parents=True)
    light.rename(data / "test" / "light")
    assert shown([run, "--data", data], capsys)["images"] == 5


def test_json_has_each_class_by_name_and_a_table_where_it_is_asked_for(run, data, capsys):
    expected = {"measure": "accuracy", "values": {"dark": 1.0, "light": 0.0}}
    assert shown([run, "--data", data], capsys)["by_class"] == {str(run): expected}
    main(["evaluate", str(run), "--data", str(data), "--by-class"])
    printed = capsys.readouterr().out
    assert "accuracy by class" in printed
    assert cells(printed.replace("┃", "│"))[-2:] == [["dark", "1.0000"], ["light", "0.0000"]]


def test_the_last_student_is_measured_where_it_is_asked_for(run, data, capsys):
    (data / "val" / "light" / "0.png").unlink()
    assert shown([run, "--data", data], capsys)["models"][str(run)]["top1"] == pytest.approx(5 / 9)
    last = shown([run, "--data", data, "--weights", "last"], capsys)
    assert last["models"][str(run)]["top1"] == pytest.approx(4 / 9)


def test_an_unfinished_run_has_no_last_student(run, data, capsys):
    (run / "student-last.safetensors").unlink()
    arguments = ["evaluate", str(run), "--data", str(data), "--weights", "last"]
    assert "is not finished" in mistake(arguments, capsys)


def test_speed_stands_beside_the_metrics(run, data, capsys):
    main(["evaluate", str(run), "--data", str(data), "--speed", "--batch-size", "4"])
    (head, values) = cells(capsys.readouterr().out.replace("┃", "│"))
    row = dict(zip(head, values, strict=True))
    module = task_kind("classification").build(str(run), CLASSES).module
    assert float(row["parameters, M"]) == round(sum(each.numel() for each in module.parameters()) / 1e6, 4)
    assert float(row["one image, ms"]) > 0
    assert float(row["images a second"]) > 0


def test_a_students_file_is_a_model_as_its_folder_is(run):
    last = task_kind("classification").build(str(run / "student-last.safetensors"), CLASSES)
    assert last.module.get_classifier().bias.tolist() == [0, 1]


def test_multiplications_are_those_of_one_image():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 16, 5))
    found = cost(model, lambda count: torch.zeros(count, 3, 4, 4), batch=3)
    assert found.macs == 3 * 9 * 8 * 16 + 8 * 16 * 5
    assert found.parameters == 3 * 9 * 8 + 8 + 8 * 16 * 5 + 5
    assert found.batch == 3
    assert model.training


def test_what_has_a_table_of_its_own_is_not_in_the_first_one():
    rows = {"run": {"miou": 0.5, "iou road": 0.6, "iou car": 0.4, "loss": 0.1}}
    classes = {"run": ByClass("iou", [0.6, 0.4])}
    assert _without_classes(rows, classes, ["road", "car"]) == {"run": {"miou": 0.5, "loss": 0.1}}


def test_a_student_is_measured_without_a_teacher_that_is_not_there_any_more(run, data, capsys):
    record = {"arguments": {"teacher": str(data / "gone"), "data": str(data)}}
    (run / "recipe.json").write_text(json.dumps(record))
    main(["evaluate", str(run), "--json"])
    told = capsys.readouterr()
    assert list(json.loads(told.out)["models"]) == [str(run)]
    assert "gone is not measured, since it cannot be loaded: no model" in told.err


def test_a_teacher_is_called_as_it_is_typed_in_this_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "net.py").touch()
    for typed in ("runs", "net.py:big", "timm:resnet18"):
        assert relative(absolute(typed)) == typed
    assert absolute("runs") != "runs"
