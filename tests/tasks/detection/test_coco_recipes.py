"""The published recipes for COCO, on a few images in the layout of that dataset."""

import json

import pytest
import timm
import torch

from limbeck.cli import main
from limbeck.models.files import function_in
from limbeck.models.run_folder import read_card
from limbeck.training.optimizer import learning_rate
from tests.places import ROOT
from tests.runs import log_of
from tests.tasks.detection.test_commands import CLASSES, write_objects

RECIPES = ROOT / "recipes"
TRAINING_IMAGES = 118_287  # of COCO
BACKBONE = "test_resnet"  # timm's smallest with stages at every stride
KINDS = {"detection": "fasterrcnn", "instance": "maskrcnn"}


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    """COCO's layout and names, with one box without height, as COCO has a few."""
    folder = tmp_path_factory.mktemp("coco")
    write_objects(folder, train=4, val=2)
    for part in ("train", "val"):
        (folder / part).rename(folder / f"{part}2017")
        path = folder / "annotations" / f"{part}.json"
        content = json.loads(path.read_text())
        if part == "train":
            content["annotations"][0]["bbox"][3] = 0
        (folder / "annotations" / f"instances_{part}2017.json").write_text(json.dumps(content))
        path.unlink()
    return folder


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """A file of weights, as a user without a network has it."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("backbone") / "backbone.pth"
    torch.save(timm.create_model(BACKBONE).state_dict(), path)
    return str(path)


@pytest.fixture(scope="module", params=KINDS)
def small(request, tmp_path_factory):
    """A task, and its recipe with backbones that are trained in seconds."""
    head = KINDS[request.param]
    path = RECIPES / f"coco_{head}101_{head}50.py"
    text = path.read_text()
    for big in ("timm:resnet50", "timm:resnet101"):
        assert f'"torchvision:{head}/{big}"' in text
        text = text.replace(f"{head}/{big}", f"{head}/timm:{BACKBONE}")
    changed = tmp_path_factory.mktemp("recipes") / path.name
    changed.write_text(text)
    return request.param, changed


def test_teacher_student_alone_and_distilled_student_are_trained_by_three_commands(
    small, coco, backbone, tmp_path, capsys
):
    task, recipe = small
    common = ["--data", str(coco), "--short-side", "64", "--long-side", "96", "--batch-size", "2", "--workers", "0"]
    common += ["--images", "2", "--epochs", "1", "--backbone", backbone]
    main(["train", f"{recipe}:teacher", *common, "--out", str(tmp_path / "teacher")])
    main(["train", f"{recipe}:alone", *common, "--out", str(tmp_path / "alone")])
    capsys.readouterr()
    given = [*common, "--teacher", str(tmp_path / "teacher"), "--no-teacher-check", "--out", str(tmp_path / "run")]
    main(["distill", str(recipe), *given])
    shown = capsys.readouterr().out.replace("\n", " ")
    assert "left out 1 annotations without a proper box" in shown
    metric = "mask_ap" if task == "instance" else "box_ap"
    for name in ("teacher", "alone", "run"):
        card = read_card(tmp_path / name / "student.safetensors")
        assert (card["task"], card["classes"]) == (task, CLASSES)
        assert 0 <= card["metrics"][metric] <= 1
    (weights,) = log_of(tmp_path / "run", "weights")
    found = {name: weight for name, weight in weights.items() if ":" in name}
    assert found == {f"ChannelTransform:backbone/{stride}": 5e-7 for stride in (4, 8, 16, 32)}
    assert log_of(tmp_path / "run", "train")[-1]["ChannelTransform:backbone/4"] > 0


def test_the_backbone_starts_from_the_classifier_and_its_norms_stay(small, coco, backbone):
    _, recipe = small
    data = function_in(recipe, "Data")(coco, short_side=(64,), long_side=96)
    student = function_in(recipe, "alone")(data, backbone=backbone).student.train()
    state, body = torch.load(backbone), student.backbone.body
    assert all(torch.equal(value, state[key]) for key, value in body.state_dict().items())
    norms = [module for module in body.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training or norm.weight.requires_grad for norm in norms)


@pytest.mark.parametrize("head", KINDS.values())
def test_the_budget_is_of_24_epochs_with_two_steps_down(head):
    recipe = RECIPES / f"coco_{head}101_{head}50.py"
    budget = function_in(recipe, "alone").__globals__["BUDGET"]
    per_epoch = TRAINING_IMAGES // budget.batch_size
    steps = 24 * per_epoch
    assert (budget.epochs, budget.batch_size) == (24, 16)
    places = (499, 500, 16 * per_epoch, 22 * per_epoch)
    rates = [learning_rate(budget, step, steps, per_epoch) for step in places]
    assert rates == pytest.approx([0.02, 0.02, 0.002, 0.0002])
    assert learning_rate(budget, 0, steps, per_epoch) == pytest.approx(0.02 / 500)


@pytest.mark.parametrize(("head", "masks"), [("fasterrcnn", False), ("maskrcnn", True)])
def test_student_and_teacher_are_those_of_the_paper_s_experiment(head, masks):
    recipe = RECIPES / f"coco_{head}101_{head}50.py"
    assert function_in(recipe, "alone").__globals__["STUDENT"] == f"torchvision:{head}/timm:resnet50"
    assert function_in(recipe, "alone").__globals__["TEACHER"] == f"torchvision:{head}/timm:resnet101"
