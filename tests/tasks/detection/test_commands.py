"""``limbeck train``, ``distill`` and ``evaluate`` of detectors and instance segmenters, on data that is made here."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from limbeck.cli import main
from limbeck.models.run_folder import read_card
from limbeck.tasks.detection.models import build_detector
from limbeck.tasks.detection.recipe import Data
from limbeck.tasks.detection.task import Detection
from tests.runs import assert_resumes_bitwise, cells, equal, log_of, mistake, weights
from tests.tasks.detection.test_transformers import LEVELS as OF_TRANSFORMERS
from tests.tasks.detection.test_transformers import configuration
from tests.test_distributed import torchrun

CLASSES = ["blue", "red"]
IDS = [3, 7]  # as a json may have them
LEVELS = {"ChannelTransform:backbone/8", "ChannelTransform:backbone/16"}
BACKBONE = "test_resnet"  # timm's smallest with stages at every stride
LAST = "backbone.body.3"  # stage of the models below
COLOURS = torch.tensor([[30, 30, 220], [220, 30, 30]])
SHORT = ("--short-side", "64", "--long-side", "96", "--workers", "0", "--batch-size", "4", "--optimizer", "adamw")
MODELS = """
from torch import nn
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.fcos import FCOS, FCOSHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign


class Pyramid(nn.Module):  # levels at the strides of 8 and 16
    out_channels = 32

    def __init__(self, width, norm):
        super().__init__()
        stages = zip([3, width, width, 2 * width], [width, width, 2 * width, 4 * width])
        self.body = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 3, 2, 1), norm(after), nn.ReLU()) for before, after in stages
        )
        self.fpn = FeaturePyramidNetwork([2 * width, 4 * width], 32)

    def forward(self, images):
        maps = [images]
        for stage in self.body:
            maps.append(stage(maps[-1]))
        return self.fpn(dict(zip("01", maps[-2:])))


def fcos(width, num_classes, norm=nn.BatchNorm2d):
    pyramid = Pyramid(width, norm)
    anchors = AnchorGenerator(((16,), (32,)), ((1.0,),) * 2)
    head = FCOSHead(32, 1, num_classes, num_convs=1)
    return FCOS(pyramid, num_classes, anchor_generator=anchors, head=head, score_thresh=0.05)


def small(num_classes):
    return fcos(8, num_classes)


def big(num_classes):
    return fcos(24, num_classes)


def without_norms(num_classes):
    return fcos(8, num_classes, nn.Identity)


def masks(num_classes):
    anchors = AnchorGenerator(((16,), (32,)), ((0.5, 1.0, 2.0),) * 2)
    pools = {
        "box_roi_pool": MultiScaleRoIAlign(["0", "1"], 5, 1),
        "mask_roi_pool": MultiScaleRoIAlign(["0", "1"], 7, 1),
    }
    few = {"rpn_post_nms_top_n_train": 32, "rpn_post_nms_top_n_test": 16, "box_batch_size_per_image": 32}
    heads = {
        "box_head": TwoMLPHead(32 * 25, 64),
        "box_predictor": FastRCNNPredictor(64, num_classes),
        "mask_head": MaskRCNNHeads(32, (16,), 1),
        "mask_predictor": MaskRCNNPredictor(16, 16, num_classes),
    }
    return MaskRCNN(Pyramid(8, nn.BatchNorm2d), rpn_anchor_generator=anchors, **pools, **heads, **few)
"""


def write_part(folder, part, count, generator):
    """Photographs of a red and a blue rectangle, and the json that describes them; one image is empty."""
    images, annotations = [], []
    (folder / part).mkdir(parents=True)
    for index in range(count):
        pixels = torch.full((64, 96, 3), 90)
        for label, left in ((0, 4), (1, 52)) if index != 1 else ():
            x, y, width, height = torch.randint(8, (4,), generator=generator).tolist()
            x, y, width, height = left + x, 2 * y, width + 24, height + 24
            pixels[y : y + height, x : x + width] = COLOURS[label]
            outline = [x, y, x + width, y, x + width, y + height, x, y + height]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": 10 + index,
                    "category_id": IDS[label],
                    "bbox": [x, y, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                    "segmentation": [outline],
                }
            )
        pixels = pixels + torch.randint(-20, 21, pixels.shape, generator=generator)
        Image.fromarray(pixels.to(torch.uint8).numpy()).save(folder / part / f"{index:02}.png")
        images.append({"id": 10 + index, "file_name": f"{index:02}.png", "height": 64, "width": 96})
    categories = [{"id": each, "name": name} for each, name in zip(IDS, CLASSES, strict=True)]
    (folder / "annotations").mkdir(exist_ok=True)
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations" / f"{part}.json").write_text(json.dumps(content))


def write_objects(folder, train=16, val=4):
    generator = torch.Generator().manual_seed(0)
    write_part(folder, "train", train, generator)
    write_part(folder, "val", val, generator)
    return str(folder)


@pytest.fixture(scope="module")
def detectors(tmp_path_factory):
    """The file of FILE.py:FUNCTION."""
    path = tmp_path_factory.mktemp("detectors") / "detectors.py"
    path.write_text(MODELS)
    return path


@pytest.fixture(scope="module")
def runs(detectors, tmp_path_factory):
    """Data, a teacher, a student alone, and a distilled student, made as a user would."""
    folder = tmp_path_factory.mktemp("detection")
    common = ["--data", write_objects(folder / "data"), *SHORT, "--learning-rate", "5e-3", "--flip", "0"]
    teacher = ["--model", f"{detectors}:big", "--epochs", "24", "--evaluate-every", "8"]
    main(["train", "detection", *common, *teacher, "--out", str(folder / "teacher")])
    student = [*common, "--epochs", "12", "--evaluate-every", "6"]
    main(["train", "detection", *student, "--model", f"{detectors}:small", "--out", str(folder / "alone")])
    main(["distill", "detection", *student, *pair(folder, detectors), "--out", str(folder / "distilled")])
    return folder


def pair(runs, detectors):
    return ["--teacher", str(runs / "teacher"), "--student", f"{detectors}:small"]


def test_a_teacher_a_student_alone_and_a_distilled_student_learn_and_are_measured(runs):
    for name, least in (("teacher", 0.5), ("alone", 0.2), ("distilled", 0.2)):
        losses = [entry["task"] for entry in log_of(runs / name, "train")]
        assert losses[-1] < losses[0] / 1.3
        values = log_of(runs / name, "val")
        metrics = read_card(runs / name / "student.safetensors")["metrics"]
        assert metrics["box_ap"] == max(entry["box_ap"] for entry in values)
        assert least < metrics["box_ap"] < metrics["box_ap50"] <= 1
        assert metrics["box_ap_large"] == -1, "there is no object of that size"


def test_by_default_every_level_of_the_pyramid_is_followed_with_a_weight_of_its_own(runs):
    terms = [f"ChannelTransform:backbone/{stride}" for stride in (8, 16)]
    for term in terms:
        losses = [entry[term] for entry in log_of(runs / "distilled", "train") if entry[term]]
        assert losses[-1] < max(losses) / 1.3
    found = log_of(runs / "distilled", "weights")[-1]
    assert len({found[term] for term in terms}) == 2
    assert not equal(weights(runs / "distilled"), weights(runs / "alone"))


def test_the_card_of_a_student_tells_what_another_program_must_know(runs, detectors):
    card = read_card(runs / "distilled" / "student.safetensors")
    assert (card["task"], card["classes"], card["short_side"], card["long_side"]) == ("detection", CLASSES, 64, 96)
    model = build_detector(str(runs / "distilled"), CLASSES).module
    assert equal(model.state_dict(), load_file(runs / "distilled" / "student.safetensors"))


@pytest.mark.parametrize(
    ("options", "terms"),
    [
        (["--method", "CWD", "--layers", "levels"], {"CWD:backbone/8", "CWD:backbone/16"}),
        (["--method", "FGD", "--strides", "8"], {"FGD:backbone/8"}),
        (["--method", "CrossKD"], {"CrossKD"}),
        (["--method", "CrossKD:boxes=0.75", "--strides", "8", "--weight", "0.1"], {"CrossKD"}),
        (["--method", "ForegroundTransform"], {"ForegroundTransform:backbone/8", "ForegroundTransform:backbone/16"}),
        (["--method", "PKD", "--student-layer", LAST, "--teacher-layer", LAST], {f"PKD:{LAST}"}),
        (["--layers", "stages", "--weight", "1e-3"], {f"ChannelTransform:backbone.body.{i}" for i in range(4)}),
        (
            ["--inherit", "--weight", "1e-5", "--reduction", "equal"],
            {f"ChannelTransform:backbone/{i}" for i in (8, 16)},
        ),
    ],
)
def test_methods_levels_stages_and_layers_are_chosen_by_options(runs, detectors, tmp_path, capsys, options, terms):
    common = ["--data", str(runs / "data"), *SHORT, "--epochs", "3", "--evaluate-every", "3", *pair(runs, detectors)]
    main(["distill", "detection", *common, *options, "--out", str(tmp_path)])
    (*_, last) = log_of(tmp_path, "train")
    assert {name for name in last if ":" in name or name == "CrossKD"} == terms
    assert all(last[term] > 0 for term in terms)
    if "--inherit" in options:
        assert (
            "the student's neck and heads start from the teacher's; 4 tensors have no count" in capsys.readouterr().out
        )
        assert log_of(tmp_path, "train")[0]["task"] < log_of(runs / "alone", "train")[0]["task"]
        (found,) = log_of(tmp_path, "weights")
        assert [found[term] for term in sorted(terms)] == pytest.approx([4e-5, 1e-5])


def test_channels_last_changes_the_memory_format_and_nothing_else(runs, detectors, tmp_path, monkeypatch):
    formats = []
    plain = Detection.loss

    def loss(self, output, batch):
        formats.append(convolution.weight.is_contiguous(memory_format=torch.channels_last))
        return plain(self, output, batch)

    def build(name, classes, masks=False):
        nonlocal convolution
        model = build_detector(name, classes, masks=masks)
        convolution = model.module.backbone.body[1][0]
        return model

    convolution = None
    monkeypatch.setattr(Detection, "loss", loss)
    monkeypatch.setattr("limbeck.tasks.detection.recipe.build_detector", build)
    command = ["train", "detection", "--data", str(runs / "data"), *SHORT, "--model", f"{detectors}:small"]
    for name, option in (("plain", "--no-channels-last"), ("last", "--channels-last")):
        main([*command, "--epochs", "1", option, "--out", str(tmp_path / name)])
    calls = len(formats) // 2
    assert calls > 4  # steps; a trial of the loss comes before them, and the measurement of what a step costs after
    assert formats == [False] * calls + [True] * calls
    one, other = (log_of(tmp_path / name, "train")[-1]["task"] for name in ("plain", "last"))
    assert one == pytest.approx(other, rel=1e-3)


def test_an_instance_segmenter_learns_from_levels_and_is_measured_by_its_masks(runs, detectors, tmp_path, capsys):
    common = ["--data", str(runs / "data"), *SHORT, "--learning-rate", "3e-3", "--flip", "0", "--clip", "5"]
    student = ["--student", f"{detectors}:masks", "--teacher", str(runs / "teacher"), "--weight", "1e-4"]
    length = ["--epochs", "24", "--evaluate-every", "24", "--no-teacher-check"]
    main(["distill", "instance", *common, *student, *length, "--out", str(tmp_path / "run")])
    card = read_card(tmp_path / "run" / "student.safetensors")
    assert card["task"] == "instance"
    assert card["metrics"]["mask_ap50"] > 0.1
    capsys.readouterr()
    main(["evaluate", str(tmp_path / "run"), "--json", "--pictures", "1"])
    measured = json.loads(capsys.readouterr().out)["models"][str(tmp_path / "run")]
    assert measured["mask_ap"] == pytest.approx(card["metrics"]["mask_ap"], abs=1e-4)
    assert (tmp_path / "run" / "pictures" / "0000-00.png").is_file()


@pytest.mark.parametrize("kind", ["detr", "rt_detr_v2", "d_fine"])
def test_a_transformer_follows_a_convolutional_detector_where_their_strides_agree(kind, runs, tmp_path, capsys):
    configuration(kind).save_pretrained(tmp_path / "folder")
    teacher = ["--teacher", f"torchvision:retinanet/timm:{BACKBONE}", "--no-teacher-check"]
    common = ["--data", str(runs / "data"), *SHORT, "--images", "8", "--epochs", "2", "--weight", "1e-4"]
    student = ["--student", f"hf:{tmp_path}/folder", "--out", str(tmp_path / "a")]
    main(["distill", "detection", *common, *teacher, *student])
    strides = [32] if kind == "detr" else [8, 16, 32]
    found = {name for name in log_of(tmp_path / "a", "train")[-1] if ":" in name}
    assert found == {f"ChannelTransform:{OF_TRANSFORMERS[kind][stride]}" for stride in strides}
    main(["evaluate", str(tmp_path / "a"), "--pictures", "1"])
    assert f"teacher torchvision:retinanet/timm:{BACKBONE}" in capsys.readouterr().out


def test_evaluate_shows_teacher_and_runs_as_their_cards_have_them_and_draws_what_they_say(runs, capsys):
    main(["evaluate", str(runs / "distilled"), str(runs / "alone"), "--pictures", "2", "--score", "0.5"])
    shown = capsys.readouterr().out
    rows = {row[0]: row[1:] for row in cells(shown)}
    assert list(rows) == [f"teacher {runs / 'teacher'}", str(runs / "distilled"), str(runs / "alone")]
    names = ["box_ap", "box_ap50", "box_ap75", "box_ap_small", "box_ap_medium", "box_ap_large"]
    for run in ("teacher", "distilled", "alone"):
        metrics = read_card(runs / run / "student.safetensors")["metrics"]
        row = rows[f"teacher {runs / run}" if run == "teacher" else str(runs / run)]
        assert row == [f"{metrics[name]:.4f}" for name in names]
    title, height, width = 16, 64, 96
    for name, objects in (("00", True), ("01", False)):
        with Image.open(runs / "distilled" / "pictures" / f"00{name}-{name}.png") as drawn:
            assert drawn.size == (5 * width, title + height)
            panels = [drawn.crop((i * width, title, (i + 1) * width, title + height)).tobytes() for i in range(5)]
        assert (panels[1] != panels[0]) == objects, "the truth has boxes where there are objects"
        assert (panels[4] != panels[0]) == objects, "and so has the teacher, which knows them"


def test_bad_data_is_an_error_that_says_the_remedy_or_a_counted_skip(runs, detectors, tmp_path, capsys):
    write_objects(tmp_path / "data")
    (tmp_path / "data" / "train" / "03.png").unlink()
    path = tmp_path / "data" / "annotations" / "val.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["category_id"] = 5
    path.write_text(json.dumps(content))
    command = ["train", "detection", "--data", str(tmp_path / "data"), *SHORT, "--model", f"{detectors}:small"]
    error = mistake([*command, "--epochs", "1", "--out", str(tmp_path / "run")], capsys)
    assert "03.png" in error
    assert "--on-bad-data skip" in error
    main([*command, "--epochs", "1", "--on-bad-data", "skip", "--out", str(tmp_path / "run")])
    shown = capsys.readouterr().out.replace("\n", " ")
    assert "03.png" in shown
    assert "of the category 5" in shown
    assert "15 training images" in shown
    capsys.readouterr()
    main(["evaluate", str(tmp_path / "run")])  # as the run was made


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "nowhere"], f"no folder {Path.cwd() / 'nowhere'}"),
        (["--images", "17"], "asked for 17 of 16 images"),
        (["--model", "torchvision:retinanet/timm:resnt18"], "timm has no backbone 'resnt18'; nearest: resnet18"),
        (["--model", "torchvision:retinant/timm:resnet18"], "write retinanet"),
        (
            ["--model", "timm:resnet18"],
            "for detection/instance: write torchvision:HEAD/timm:BACKBONE",
        ),
        (["--backbone", "nothing.pth"], "no weights at nothing.pth"),
    ],
)
def test_a_mistake_ends_with_one_line_that_says_the_remedy(runs, tmp_path, capsys, options, message):
    given = {"--data": [str(runs / "data")], "--model": ["torchvision:ssdlite/timm:mobilenetv3_small_050"]}
    given[options[0]] = options[1:]
    arguments = [*SHORT, *(word for name, values in given.items() for word in (name, *values))]
    assert message in mistake(["train", "detection", *arguments, "--out", str(tmp_path / "run")], capsys)
    assert not (tmp_path / "run" / "student.safetensors").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "KD"], "KD compares class scores, of which each detector has its own kind"),
        (["--strides", "8", "64"], "the student has levels at the strides [8, 16], not at [64]"),
        (["--reduction", "equal"], "auto finds a weight for each"),
        (["--layers", "stages", "--student-layer", "backbone.body.3"], "not both"),
    ],
)
def test_a_match_that_cannot_be_is_refused_before_training(runs, detectors, tmp_path, capsys, options, message):
    command = ["distill", "detection", "--data", str(runs / "data"), *SHORT, *pair(runs, detectors), *options]
    assert message in mistake([*command, "--out", str(tmp_path)], capsys)


def test_a_detector_of_boxes_cannot_be_an_instance_segmenter(runs, detectors, tmp_path, capsys):
    command = ["train", "instance", "--data", str(runs / "data"), *SHORT, "--model", f"{detectors}:small"]
    assert "gives boxes without masks" in mistake([*command, "--out", str(tmp_path)], capsys)


def test_a_worthless_teacher_is_refused(runs, detectors, tmp_path, capsys):
    command = ["distill", "detection", "--data", str(runs / "data"), *SHORT, "--student", f"{detectors}:small"]
    error = mistake([*command, "--teacher", f"{detectors}:big", "--out", str(tmp_path)], capsys)
    assert "the teacher's box_ap is 0.0" in error
    assert "--no-teacher-check" in error


def test_a_run_killed_and_resumed_by_its_folder_ends_bitwise_as_an_unbroken_one(runs, detectors, tmp_path):
    options = ["--epochs", "12", "--checkpoint-every", "2", "--evaluate-every", "12", "--no-teacher-check"]
    short = [word if word != "0" else "1" for word in SHORT]  # with a worker
    data = ["--data", str(runs / "data"), *short, "--colour", "0.3"]
    methods = ["--method", "ChannelTransform", "--method", "CrossKD"]
    start = ["distill", "detection", *data, *options, *methods, *pair(runs, detectors)]
    assert_resumes_bitwise(start, tmp_path, kill_after=(4, 29))  # of 48 steps; weights are still measured at step 4


@pytest.mark.skipif(torch.cuda.is_available(), reason="two processes without a GPU, the one process would have it")
def test_two_processes_distil_together_and_measure_as_one(runs, detectors, tmp_path, capsys):
    data = write_objects(tmp_path / "data", val=5)  # a share of 2 images, and one of 3
    options = [*SHORT, "--epochs", "6", "--evaluate-every", "6", "--learning-rate", "5e-3", "--no-teacher-check"]
    run = tmp_path / "run"
    torchrun(
        *("-m", "limbeck", "distill", "detection", "--data", data, *options, "--weight", "1e-4"),
        *("--method", "ChannelTransform", "--method", "CrossKD", "--weight", "1"),
        *("--teacher", str(runs / "teacher"), "--student", f"{detectors}:without_norms", "--out", str(run)),
    )
    metrics = read_card(run / "student.safetensors")["metrics"]
    assert metrics["box_ap50"] > 0
    main(["evaluate", str(run)])
    rows = {row[0]: row[1:] for row in cells(capsys.readouterr().out)}
    assert rows[str(run)][:3] == [f"{metrics[name]:.4f}" for name in ("box_ap", "box_ap50", "box_ap75")]
    first, *_, last = log_of(run, "train")
    assert last["task"] < first["task"]


def test_who_lacks_the_package_that_measures_is_told_what_to_install(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("limbeck.tasks.detection.recipe.find_spec", lambda name: None)
    command = ["train", "detection", "--data", str(runs / "data"), "--model", "torchvision:fcos/timm:resnet18"]
    assert "pip install 'limbeck[coco]'" in mistake([*command, "--out", str(tmp_path)], capsys)


def test_sizes_and_shares_that_cannot_be_are_refused(tmp_path):
    for wrong, message in (
        ({"short_side": (128,), "long_side": 96}, "long_side is 96, less than a short side, 128"),
        ({"short_side": ()}, "it must be 1 or more"),
        ({"images": 0}, "images is 0"),
        ({"flip": 1.5}, "flip is 1.5; it must be 0 or more, and at most 1"),
        ({"colour": -1}, "colour is -1"),
    ):
        with pytest.raises(ValueError, match=message):
            Data(tmp_path, **wrong)


def test_a_detector_is_compressed_and_evaluated(runs, tmp_path, capsys):
    words = ["--data", str(runs / "data"), *SHORT[:-2], "--ratio", "0.4"]
    main(["compress", "detection", str(runs / "teacher"), *words, "--out", str(tmp_path / "run")])
    assert "Tucker" in capsys.readouterr().out
    card = read_card(tmp_path / "run" / "student.safetensors")
    assert card["compressed"]
    main(["evaluate", str(tmp_path / "run")])
    assert f"{card['metrics']['box_ap']:.4f}" in capsys.readouterr().out
