"""The published recipe for Cityscapes, on a few images in the layout of that dataset."""

import json
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file

from limbeck.cli import main
from limbeck.models.backbone import load_backbone
from limbeck.models.files import function_in
from limbeck.models.run_folder import read_card
from limbeck.tasks.semantic.cityscapes import CITYSCAPES
from limbeck.tasks.semantic.load import load_masks
from limbeck.tasks.semantic.models import build_segmenter
from limbeck.training.optimizer import learning_rate
from tests.places import ROOT

RECIPE = ROOT / "recipes" / "cityscapes_pspnet101_pspnet18.py"
TRAINING_IMAGES = 2975  # of Cityscapes


def write_cityscapes(folder):
    """Ten images for training and two for validation: a road, a car, and a label that is not trained on."""
    generator = torch.Generator().manual_seed(0)
    for part, city, count in (("train", "aachen", 6), ("train", "ulm", 4), ("val", "lindau", 2)):
        for index in range(count):
            labels = torch.full((64, 128), 23, dtype=torch.uint8)  # sky
            labels[32:] = 7  # road
            labels[36:52, 10:60] = 26  # car
            labels[-4:] = 1  # the ego vehicle
            image = (labels.long()[..., None] * torch.tensor([8, 3, 5])) % 200
            image = image + torch.randint(0, 40, (64, 128, 3), generator=generator)
            name = f"{city}_{index:06}_000019"
            for kind, ending, pixels in (("leftImg8bit", "leftImg8bit", image), ("gtFine", "gtFine_labelIds", labels)):
                path = folder / kind / part / city / f"{name}_{ending}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.to(torch.uint8).numpy()).save(path)
    return str(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_cityscapes(tmp_path_factory.mktemp("cityscapes"))


def weights_of(classifier, folder):
    """A file of weights, as a user without a network has it."""
    torch.manual_seed(1)
    path = folder / f"{classifier}.pth"
    torch.save(timm.create_model(classifier).state_dict(), path)
    return str(path)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return weights_of("resnet18", tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="module")
def small_recipe(tmp_path_factory):
    """The recipe with a teacher that is trained in seconds, and where that one's backbone is."""
    folder = tmp_path_factory.mktemp("small")
    text = RECIPE.read_text()
    big = 'PSPNet("resnet101", num_classes, width=512)'
    assert text.count(big) == 1
    (folder / "small.py").write_text(text.replace(big, 'PSPNet("resnet10t", num_classes, width=32)'))
    return folder / "small.py", weights_of("resnet10t", folder)


@pytest.fixture(scope="module")
def runs(data, backbone, small_recipe, tmp_path_factory):
    """A teacher, the student alone, and the distilled student."""
    folder = tmp_path_factory.mktemp("runs")
    common = ["--data", data, "--crop", "64", "64", "--batch-size", "2", "--workers", "0"]
    student = [*common, "--backbone", backbone, "--epochs", "1"]
    teacher, alone, distilled = (str(folder / name) for name in ("teacher", "alone", "distilled"))
    longer = ["--backbone", small_recipe[1], "--epochs", "4", "--learning-rate", "0.03"]
    main(["train", f"{small_recipe[0]}:teacher", *common, *longer, "--out", teacher])
    main(["train", f"{RECIPE}:alone", *student, "--out", alone])
    main(["distill", str(RECIPE), *student, "--teacher", teacher, "--out", distilled])
    return folder


def log_of(run, kind):
    entries = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [entry for entry in entries if entry["kind"] == kind]


def test_the_layout_of_cityscapes_is_read_with_its_19_classes(data):
    train, val = load_masks(Path(data))
    assert (len(train), len(val)) == (10, 2)
    assert train.classes == list(CITYSCAPES.values())
    assert len(train.classes) == 19
    assert train.read_mask(0).unique().tolist() == [0, 10, 13, 255]  # road, sky, car; the ego vehicle is ignored


def test_teacher_student_alone_and_distilled_student_are_trained_by_three_commands(runs):
    for name in ("teacher", "alone", "distilled"):
        card = read_card(runs / name / "student.safetensors")
        assert card["classes"] == list(CITYSCAPES.values())
        assert 0 <= card["metrics"]["miou"] <= 1
        assert "iou road" in card["metrics"]
        assert log_of(runs / name, "train")[-1]["step"] == (20 if name == "teacher" else 5)
    terms = log_of(runs / "distilled", "train")[-1]
    assert terms["ChannelTransform:backbone.layer4"] > 0
    (weights,) = log_of(runs / "distilled", "weights")
    assert weights["ChannelTransform:backbone.layer4"] == 2e-5
    alone, distilled = (load_file(runs / name / "student.safetensors") for name in ("alone", "distilled"))
    assert alone.keys() == distilled.keys()
    assert not torch.equal(alone["backbone.conv1.weight"], distilled["backbone.conv1.weight"])


def test_the_arguments_of_a_run_are_recorded(runs):
    record = json.loads((runs / "distilled" / "recipe.json").read_text())
    assert record["recipe"] == str(RECIPE)
    assert record["uses"] == ["ChannelTransform"]
    assert record["arguments"]["data"]["crop"] == [64, 64]
    assert {"teacher", "backbone"} <= record["sha256"].keys()


def test_evaluate_shows_the_runs_of_the_recipe_beside_the_teacher(runs, capsys):
    main(["evaluate", str(runs / "distilled"), str(runs / "alone"), "--pictures", "1"])
    shown = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines() if line.startswith("│")]
    cards = [read_card(runs / name / "student.safetensors") for name in ("teacher", "distilled", "alone")]
    assert [row[1] for row in rows] == [f"{card['metrics']['miou']:.4f}" for card in cards]
    with Image.open(runs / "distilled" / "pictures" / "0000-lindau_000000_000019_leftImg8bit.png") as drawn:
        assert drawn.size == (5 * 128, 64 + 16)


def test_the_backbone_starts_from_the_classifier(backbone):
    built = build_segmenter(f"{RECIPE}:pspnet18", ["a", "b"])
    model, state = built.module, torch.load(backbone)
    assert load_backbone(built, backbone) == len(model.backbone.state_dict())
    for key, value in model.backbone.state_dict().items():
        assert torch.equal(value, state[key]), key


@pytest.mark.parametrize(("name", "width", "channels"), [("pspnet18", 128, 512), ("pspnet101", 512, 2048)])
def test_the_nets_have_a_stride_of_eight_and_two_heads(name, width, channels):
    with torch.device("meta"):
        model = function_in(RECIPE, name)(num_classes=19).eval()
        maps = model(torch.zeros(1, 3, 64, 128))
        _, last = model.backbone(torch.zeros(1, 3, 64, 128))
    assert {head: each.shape for head, each in maps.items()} == dict.fromkeys(("out", "aux"), (1, 19, 64, 128))
    assert last.shape == (1, channels, 8, 16)
    assert model.classifier.in_channels == width


def test_the_budget_is_of_40000_steps_and_poly():
    budget = function_in(RECIPE, "alone").__globals__["BUDGET"]
    steps_per_epoch = TRAINING_IMAGES // budget.batch_size
    steps = budget.epochs * steps_per_epoch
    assert budget.batch_size == 8
    assert abs(steps - 40_000) <= steps_per_epoch
    rates = [learning_rate(budget, step, steps, steps_per_epoch) for step in (0, steps // 2, steps - 1)]
    assert rates == pytest.approx([0.01, 0.01 * 0.5**0.9, 0], abs=1e-5)


def test_the_crop_is_512_by_1024_if_no_other_is_asked_for(runs, data, backbone, small_recipe):
    given = function_in(RECIPE, "Data")(Path(data))
    recipes = [
        function_in(small_recipe[0], "teacher")(given, backbone=small_recipe[1]),
        function_in(RECIPE, "alone")(given, backbone=backbone),
        function_in(RECIPE, RECIPE.stem)(given, str(runs / "teacher"), backbone=backbone),
    ]
    assert ["crops of 512x1024" in recipe.notes[-1] for recipe in recipes] == [True] * 3
    assert recipes[0].train_data[0, 0]["image"].shape == (3, 512, 1024)
