import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from limbeck.cli import main
from limbeck.models.files import function_in
from limbeck.models.run_folder import read_card
from limbeck.tasks.semantic.task import Semantic
from tests.places import ROOT
from tests.runs import assert_resumes_bitwise, cells, equal, log_of, mistake, weights
from tests.test_distributed import assert_same_run, torchrun

CLASSES = ["ground", "red", "blue"]
COLOURS = torch.tensor([[90, 90, 90], [220, 30, 30], [30, 30, 220]])
SHORT = ("--batch-size", "4", "--learning-rate", "0.1", "--workers", "0", "--colour", "0")
MODELS = """
from torch import nn


class Segmenter(nn.Module):  # maps at a half and a quarter of the image; an auxiliary head on the first
    def __init__(self, width, num_classes, norm=nn.BatchNorm2d):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), norm(width), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(width, 2 * width, 3, 2, 1), norm(2 * width), nn.ReLU())
        self.classifier = nn.Conv2d(2 * width, num_classes, 1)
        self.auxiliary = nn.Conv2d(width, num_classes, 1)

    def forward(self, images):
        first = self.stem(images)
        return {"out": self.classifier(self.body(first)), "aux": self.auxiliary(first)}


def small(num_classes):
    return Segmenter(4, num_classes)


def big(num_classes):
    return Segmenter(12, num_classes)


def without_norms(num_classes):
    return Segmenter(4, num_classes, norm=nn.Identity)


def constant(num_classes):  # one class everywhere
    model = small(num_classes)
    nn.init.zeros_(model.classifier.weight)
    return model
"""


def write_pair(folder, name, size, generator, *, void=False):
    """A photograph of a red and a blue rectangle, and its mask; ``void`` leaves a corner without a class."""
    height, width = size
    mask = torch.zeros(height, width, dtype=torch.uint8)
    for label, left in ((1, 0), (2, width // 2)):
        top, end = torch.randint(2, height // 3, (2,), generator=generator).tolist()
        mask[top : height - end, left + 3 : left + width // 2 - 3] = label
    image = COLOURS[mask.long()] + torch.randint(-25, 26, (height, width, 3), generator=generator)
    if void:
        mask[:8, :8] = 255
    for part, pixels in (("images", image.clamp(0, 255).to(torch.uint8)), ("masks", mask)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.numpy()).save(folder / part / f"{name}.png")


def write_data(folder, train=12, val=((40, 48),) * 4, *, void=True):
    generator = torch.Generator().manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "classes.txt").write_text("\n".join(CLASSES))
    for index in range(train):
        write_pair(folder / "train", f"{index:02}", (40, 48), generator, void=void and index == 3)
    for index, size in enumerate(val):
        write_pair(folder / "val", f"{index:02}", size, generator, void=void)
    return str(folder)


@pytest.fixture(scope="module")
def segmenters(tmp_path_factory):
    """The file of FILE.py:FUNCTION."""
    path = tmp_path_factory.mktemp("segmenters") / "segmenters.py"
    path.write_text(MODELS)
    return path


@pytest.fixture(scope="module")
def runs(segmenters, tmp_path_factory):
    """Data, a teacher, a student alone, and a distilled student, made as a user would."""
    folder = tmp_path_factory.mktemp("semantic")
    common = ["--data", write_data(folder / "data"), *SHORT]
    student = [*common, "--epochs", "8"]
    teacher = str(folder / "teacher")
    main(["train", "semantic", *common, "--model", f"{segmenters}:big", "--epochs", "16", "--out", teacher])
    main(["train", "semantic", *student, "--model", f"{segmenters}:small", "--out", str(folder / "alone")])
    main(["distill", "semantic", *student, *pair(folder, segmenters), "--out", str(folder / "distilled")])
    return folder


def pair(runs, segmenters):
    return ["--teacher", str(runs / "teacher"), "--student", f"{segmenters}:small"]


def alone(segmenters, run):
    return ["--model", f"{segmenters}:small", "--out", str(run)]


def test_a_teacher_a_student_alone_and_a_distilled_student_learn_and_are_measured(runs):
    for name, least in (("teacher", 0.7), ("alone", 0.5), ("distilled", 0.5)):
        losses = [entry["task"] for entry in log_of(runs / name, "train")]
        assert losses[-1] < losses[0] / 1.5
        values = log_of(runs / name, "val")
        metrics = read_card(runs / name / "student.safetensors")["metrics"]
        assert metrics["miou"] == max(entry["miou"] for entry in values) > least
        by_class = [metrics[f"iou {name}"] for name in CLASSES]
        assert metrics["miou"] == pytest.approx(sum(by_class) / 3)
        assert max(by_class) <= 1
        assert metrics["pixel_accuracy"] > metrics["miou"]


def test_the_default_follows_the_map_that_the_classifier_takes(runs):
    losses = [entry["ChannelTransform:classifier:input"] for entry in log_of(runs / "distilled", "train")]
    assert losses[-1] < max(losses) / 1.5
    record = json.loads((runs / "distilled" / "recipe.json").read_text())
    assert record["uses"] == ["ChannelTransform"]
    assert len(record["sha256"]["teacher"]) == 64


def test_the_card_of_a_student_tells_what_another_program_must_know(runs, segmenters):
    card = read_card(runs / "distilled" / "student.safetensors")
    assert (card["task"], card["classes"], card["short_side"]) == ("semantic", CLASSES, 40)
    function_in(segmenters, "small")(num_classes=3).load_state_dict(
        weights(runs / "distilled")
    )  # the student alone, without limbeck


@pytest.mark.parametrize(
    ("options", "term"),
    [
        (["--layers", "stages"], "ChannelTransform:stem"),
        (["--method", "CWD", "--layers", "output", "--weight", "3"], "CWD:output"),
        (["--method", "KD"], "KD:output"),
    ],
)
def test_features_stages_and_outputs_are_followed(runs, segmenters, tmp_path, options, term):
    common = ["--data", str(runs / "data"), *SHORT, "--epochs", "8", *pair(runs, segmenters)]
    main(["distill", "semantic", *common, *options, "--out", str(tmp_path)])
    terms = [{name for name in entry if name.partition(":")[0] in term} for entry in log_of(tmp_path, "train")]
    assert term in terms[0]
    assert len(terms[0]) == (2 if "stages" in options else 1)
    (name,) = (name for name in terms[0] if name == term)
    losses = [entry[name] for entry in log_of(tmp_path, "train") if entry[name]]  # 0 while a weight is measured
    assert losses[-1] < max(losses) / 1.2
    assert read_card(tmp_path / "student.safetensors")["metrics"]["miou"] > 0.5
    assert not equal(weights(tmp_path), weights(runs / "alone"))


def test_the_task_has_a_dice_loss_weighed_classes_and_an_auxiliary_head(runs, segmenters, tmp_path):
    common = ["train", "semantic", "--data", str(runs / "data"), *SHORT, "--epochs", "8"]
    every = ["--dice", "1", "--class-weights", "balanced", "--auxiliary", "1"]
    main([*common, *every, "--model", f"{segmenters}:small", "--out", str(tmp_path / "every")])
    losses = [entry["task"] for entry in log_of(tmp_path / "every", "train")]
    plain = log_of(runs / "alone", "train")[0]["task"]
    assert plain + 0.5 < losses[0]  # a Dice loss of an untrained net is above 0.5
    assert losses[-1] < losses[0] / 1.5
    assert read_card(tmp_path / "every" / "student.safetensors")["metrics"]["miou"] > 0.5
    one_epoch = [*common[:-1], "1", "--auxiliary", "0", "--model", f"{segmenters}:small"]
    main([*one_epoch, "--out", str(tmp_path / "none")])
    torch.manual_seed(0)  # the run's
    start = function_in(segmenters, "small")(num_classes=3).state_dict()
    assert torch.equal(weights(tmp_path / "none")["auxiliary.bias"], start["auxiliary.bias"]), "nothing trained it"
    assert not torch.equal(weights(tmp_path / "every")["auxiliary.bias"], start["auxiliary.bias"])


def test_evaluate_shows_teacher_and_runs_as_their_cards_have_them_and_draws_what_they_say(runs, capsys):
    main(["evaluate", str(runs / "distilled"), str(runs / "alone"), "--pictures", "2"])
    shown = capsys.readouterr().out
    rows = {row[0]: row[1:] for row in cells(shown)}
    assert list(rows) == [f"teacher {runs / 'teacher'}", str(runs / "distilled"), str(runs / "alone")]
    names = ["miou", "pixel_accuracy", "loss", "iou ground", "iou red", "iou blue"]
    assert all(name in shown for name in names)
    for run in ("teacher", "distilled", "alone"):
        metrics = read_card(runs / run / "student.safetensors")["metrics"]
        row = rows[f"teacher {runs / run}" if run == "teacher" else str(runs / run)]
        assert row == [f"{metrics[name]:.4f}" for name in names]
    pictures = runs / "distilled" / "pictures"
    assert sorted(path.name for path in pictures.iterdir()) == ["0000-00.png", "0001-01.png", "classes.png"]
    title, height, width = 16, 40, 48
    for name in ("00", "01"):
        with (
            Image.open(pictures / f"00{name}-{name}.png") as drawn,
            Image.open(runs / f"data/val/images/{name}.png") as image,
        ):
            drawn.load()
            assert drawn.size == (5 * width, title + height)
            panels = [drawn.crop((i * width, title, (i + 1) * width, title + height)) for i in range(5)]
            image = image.convert("RGB")
            assert panels[0].tobytes() == image.tobytes()
            corner = (0, 0, 8, 8)  # is of no class
            assert panels[1].crop(corner).tobytes() == image.crop(corner).tobytes()
            assert panels[2].crop(corner).tobytes() != image.crop(corner).tobytes(), "a model gives every pixel one"
            assert all(panel.tobytes() != image.tobytes() for panel in panels[1:])


def test_pictures_of_more_images_than_there_are_are_of_all(runs, segmenters, tmp_path, capsys):
    main(
        [
            "train",
            "semantic",
            "--data",
            str(runs / "data"),
            *SHORT,
            "--epochs",
            "1",
            *alone(segmenters, tmp_path / "run"),
        ]
    )
    main(["evaluate", str(tmp_path / "run"), "--pictures", "9"])
    assert "teacher" not in capsys.readouterr().out
    assert len(list((tmp_path / "run" / "pictures").iterdir())) == 4 + 1
    with Image.open(tmp_path / "run" / "pictures" / "0003-03.png") as drawn:
        assert drawn.size == (3 * 48, 16 + 40)


def test_pictures_of_a_classifier_are_refused(tmp_path, capsys):
    data = ["--data", "digits", "--images", "64", "--augment", "none", "--size", "8", "--workers", "0"]
    model = ["--model", f"{ROOT / 'tests' / 'nets.py'}:small", "--batch-size", "32", "--epochs", "1"]
    main(["train", "classification", *data, *model, "--out", str(tmp_path / "run")])
    capsys.readouterr()
    assert "--pictures shows masks" in mistake(["evaluate", str(tmp_path / "run"), "--pictures", "2"], capsys)


def test_images_of_several_sizes_are_measured_one_at_a_time(segmenters, tmp_path, capsys):
    sizes = [(40, 48), (48, 40), (56, 64), (40, 48)]
    data = write_data(tmp_path / "data", val=sizes)
    main(["train", "semantic", "--data", data, *SHORT, "--epochs", "3", *alone(segmenters, tmp_path / "run")])
    metrics = read_card(tmp_path / "run" / "student.safetensors")["metrics"]
    capsys.readouterr()
    main(["evaluate", str(tmp_path / "run"), "--pictures", "4"])
    (row,) = cells(capsys.readouterr().out)
    assert row[1] == f"{metrics['miou']:.4f}"
    for name, (height, width) in zip(("00", "01", "02", "03"), sizes, strict=True):
        with Image.open(tmp_path / "run" / "pictures" / f"00{name}-{name}.png") as drawn:
            assert drawn.size == (3 * width, 16 + height)


def test_images_are_brought_to_a_size_and_masks_are_measured_at_their_own(
    runs, segmenters, tmp_path, monkeypatch, capsys
):
    masks = []
    plain = Semantic.evaluate

    def evaluate(self, model, loader):
        batches = list(loader)
        masks.extend((tuple(batch["image"].shape[-2:]), tuple(batch["mask"].shape[-2:])) for batch in batches)
        return plain(self, model, batches)

    monkeypatch.setattr(Semantic, "evaluate", evaluate)
    options = ["--short-side", "20", "--images", "8", "--epochs", "1"]
    main(["train", "semantic", "--data", str(runs / "data"), *SHORT, *options, *alone(segmenters, tmp_path / "run")])
    assert set(masks) == {((20, 24), (40, 48))}
    assert "8 training images, shorter side 20 px, crops of 20x24" in capsys.readouterr().out
    main(["evaluate", str(tmp_path / "run")])
    assert set(masks) == {((20, 24), (40, 48))}
    (row,) = cells(capsys.readouterr().out)
    assert row[1] == f"{read_card(tmp_path / 'run' / 'student.safetensors')['metrics']['miou']:.4f}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--crop", "40", "44"], "crops of 40x44 do not fit: the models want multiples of 8"),
        (["--images", "13"], "asked for 13 of 12 images"),
        (["--data", "nowhere"], f"no folder {Path.cwd() / 'nowhere'}; it should hold images/ and masks/"),
        (
            ["--model", "smp:PSPnet/tu-resnt10t"],
            "no encoder 'tu-resnt10t' in smp:PSPnet/tu-resnt10t: write smp:PSPNet/ENCODER, nearest: tu-resnet10t",
        ),
        (["--model", "timm:resnet18"], "write smp:ARCH/ENCODER"),
        (["--backbone", "nothing.pth"], "no weights at nothing.pth"),
        (["--batch-size", "16"], "12 training images are fewer than one batch of 16"),
    ],
)
def test_a_mistake_ends_with_one_line_that_says_the_remedy(runs, tmp_path, capsys, options, message):
    given = {"--data": [str(runs / "data")], "--model": ["smp:PSPNet/tu-mobilenetv3_small_050"], "--epochs": ["1"]}
    given[options[0]] = options[1:]
    arguments = [word for name, values in given.items() for word in (name, *values)]
    assert message in mistake(["train", "semantic", *arguments, "--out", str(tmp_path / "run")], capsys)
    assert not (tmp_path / "run" / "student.safetensors").exists()


def test_an_untrained_teacher_is_refused(runs, segmenters, tmp_path, capsys):
    common = ["--data", str(runs / "data"), *SHORT, "--epochs", "1", "--student", f"{segmenters}:small"]
    error = mistake(
        ["distill", "semantic", *common, "--teacher", f"{segmenters}:constant", "--out", str(tmp_path)], capsys
    )
    assert "the teacher's mIoU is" in error
    assert "--no-teacher-check" in error


def test_layers_lists_a_segmenter_of_smp_and_a_run(runs, capsys):
    main(["layers", "smp:PSPNet/tu-mobilenetv3_small_050", "--size", "64", "--depth", "1"])
    rows = {row[0]: row[1:] for row in cells(capsys.readouterr().out)}
    assert rows["decoder"] == ["map", "(512, 8, 8)", "8"]
    main(["layers", str(runs / "distilled"), "--size", "64", "--depth", "1"])
    rows = {row[0]: row[1:] for row in cells(capsys.readouterr().out)}
    assert rows["body"] == ["map", "(8, 16, 16)", "4"]
    assert rows["classifier"] == ["map", "(3, 16, 16)", "4"]


def test_the_same_seed_gives_the_same_weights_for_any_number_of_loader_workers(runs, segmenters, tmp_path):
    common = ["train", "semantic", "--data", str(runs / "data"), "--batch-size", "4", "--epochs", "2"]
    for workers in "02":
        main([*common, "--workers", workers, *alone(segmenters, tmp_path / workers)])
    main([*common, "--workers", "0", "--seed", "1", *alone(segmenters, tmp_path / "other")])
    assert equal(weights(tmp_path / "0"), weights(tmp_path / "2"))
    assert not equal(weights(tmp_path / "0"), weights(tmp_path / "other"))


def test_a_run_killed_and_resumed_by_its_folder_ends_bitwise_as_an_unbroken_one(runs, segmenters, tmp_path):
    options = ["--dice", "1", "--class-weights", "balanced", "--epochs", "16", "--checkpoint-every", "2"]
    data = ["--data", str(runs / "data"), "--batch-size", "4", "--learning-rate", "0.1", "--workers", "1"]
    start = ["distill", "semantic", *data, *options, *pair(runs, segmenters)]
    assert_resumes_bitwise(start, tmp_path, kill_after=(4, 29))  # of 48 steps; the weight is still measured at step 4


@pytest.mark.skipif(torch.cuda.is_available(), reason="two processes without a GPU, the one process would have it")
def test_two_processes_train_and_measure_as_one(segmenters, tmp_path):
    data = write_data(tmp_path / "data", val=[(40, 48)] * 5, void=False)  # a share of 2 images, and one of 3
    options = ["--scale", "1", "1", "--epochs", "2", "--model", f"{segmenters}:without_norms"]
    command = ["train", "semantic", "--data", data, *SHORT, *options, "--out"]
    torchrun("-m", "limbeck", *command, str(tmp_path / "two"))
    main([*command, str(tmp_path / "one")])
    assert_same_run(tmp_path / "two", tmp_path / "one")


def test_a_segmenter_is_compressed_and_evaluated(runs, tmp_path, capsys):
    words = ["--data", str(runs / "data"), "--batch-size", "4", "--workers", "0", "--ratio", "0.4"]
    words += ["--global-epochs", "1"]
    main(["compress", "semantic", str(runs / "teacher"), *words, "--out", str(tmp_path / "run")])
    card = read_card(tmp_path / "run" / "student.safetensors")
    assert "body.0" in card["compressed"]
    assert card["metrics"]["miou"] > 0.4
    main(["evaluate", str(tmp_path / "run")])
    assert f"{card['metrics']['miou']:.4f}" in capsys.readouterr().out
