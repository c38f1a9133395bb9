"""Images that cannot be read any more while a run goes on: an error, or with skip the next one stands in."""

import pytest
from PIL import Image

from limbeck.cli import main
from limbeck.commands import run
from tests.places import ROOT
from tests.runs import mistake
from tests.tasks.detection import test_commands as detection
from tests.tasks.semantic import test_commands as semantic

SHORT = ("--workers", "0", "--batch-size", "4", "--max-steps", "4")


def write_classes(folder):
    for part, count in (("train", 8), ("val", 4)):
        for index in range(count):
            path = folder / part / ("cat", "dog")[index % 2] / f"{index:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.effect_noise((8, 8), 50).save(path)


@pytest.fixture(params=["classification", "semantic", "detection", "instance"])
def command(request, tmp_path):
    """A run of each task, of 8 or 16 training images and 4 validation images."""
    data, name = tmp_path / "data", "small"
    models, options = ROOT / "tests" / "nets.py", ["--size", "8"]
    if request.param == "classification":
        write_classes(data)
    else:
        task = semantic if request.param == "semantic" else detection
        models = tmp_path / "models.py"
        models.write_text(task.MODELS)
        if task is semantic:
            semantic.write_data(data, train=8)
            options = []
        else:
            detection.write_objects(data)
            name, options = "masks" if request.param == "instance" else "small", ["--short-side", "64"]
    model = ["--model", f"{models}:{name}", "--data", str(data), "--out", str(tmp_path / "run")]
    return ["train", request.param, *model, *options, *SHORT]


@pytest.fixture
def damaged(tmp_path, monkeypatch):
    """Cut an image of each part short between the check of all images and the run."""
    plain, names = run.train_recipe, []

    def train(*args, **options):
        for part in ("train", "val"):
            path = sorted(path for path in (tmp_path / "data" / part).rglob("03.png") if path.parent.name != "masks")[0]
            path.write_bytes(path.read_bytes()[:-40])
            names.append(str(path))
        return plain(*args, **options)

    monkeypatch.setattr(run, "train_recipe", train)
    return names


def test_images_damaged_after_the_check_are_counted_and_replaced_if_so_wanted(command, damaged, capsys):
    main([*command, "--on-bad-data", "skip"])
    shown = "".join(capsys.readouterr().out.split())
    for name in damaged:
        assert f"samples,thenextstoodin;thefirst:{name}cannotbereadasanimage" in shown
    assert shown.count("couldnotread1of") == 2


def test_images_damaged_after_the_check_end_the_run_by_name(command, damaged, capsys):
    error = mistake(command, capsys)
    assert any(f"{name} cannot be read as an image" in error for name in damaged)
