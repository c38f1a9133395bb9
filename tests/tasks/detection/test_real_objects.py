"""Both commands on real photographs: blood cells with boxes, scenes of COCO with outlines."""

import zipfile

import pytest

from limbeck.cli import main
from limbeck.models.run_folder import read_card
from limbeck.tasks.detection.load import load_objects
from limbeck.tasks.detection.task import precision
from tests.places import SHARED_DATA

DATA = SHARED_DATA
SMALL = ("--short-side", "64", "--long-side", "96", "--images", "4", "--batch-size", "2", "--workers", "0")

pytestmark = [
    pytest.mark.shared_data,
    pytest.mark.skipif(
        not (DATA / "bccd.zip").is_file() or not (DATA / "coco128.zip").is_file(),
        reason="no bccd.zip and coco128.zip in ../shared/data: bring your own to run this",
    ),
]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    for name in ("bccd", "coco128"):
        with zipfile.ZipFile(DATA / f"{name}.zip") as archive:
            archive.extractall(folder)
    return folder


def test_the_truth_itself_has_an_average_precision_of_one(photographs):
    for name, kind in (("bccd", "bbox"), ("coco128", "segm")):
        _, val = load_objects(photographs / name, on_bad="skip", outlines=kind == "segm")
        found = []
        for image in val.images:
            for place, (left, top, right, bottom) in enumerate(image.boxes.tolist()):
                box = {"bbox": [left, top, right - left, bottom - top]}
                said = {"segmentation": outline(image, place)} if kind == "segm" else box
                category = val.ids[int(image.labels[place])]
                found.append({"image_id": image.id, "category_id": category, "score": 1.0, **said})
        # Not 1 where an image has more than the hundred objects that are counted, or two have one place.
        assert precision(val, found, kind)[0][0] > 0.97


def outline(image, place):
    from faster_coco_eval.core import mask

    return mask.merge(mask.frPyObjects(image.outlines[place], *image.size))


@pytest.mark.parametrize(
    ("data", "task", "teacher", "student"),
    [
        ("bccd", "detection", "fcos/timm:test_resnet", "fasterrcnn/timm:test_resnet"),
        ("coco128", "instance", "retinanet/timm:test_resnet", "maskrcnn/timm:test_efficientnet"),
    ],
)
def test_a_detector_is_distilled_on_photographs_by_one_command(
    photographs, tmp_path, capsys, data, task, teacher, student
):
    common = ["--data", str(photographs / data), *SMALL, "--on-bad-data", "skip", "--epochs", "1"]
    main(["train", "detection", *common, "--model", f"torchvision:{teacher}", "--out", str(tmp_path / "teacher")])
    models = ["--teacher", str(tmp_path / "teacher"), "--student", f"torchvision:{student}", "--no-teacher-check"]
    main(["distill", task, *common, *models, "--out", str(tmp_path / "run")])
    shown = capsys.readouterr().out.replace("\n", " ")
    assert "levels at the strides [4, 64, 128] are in one of the two pyramids only" in shown
    card = read_card(tmp_path / "run" / "student.safetensors")
    assert (card["task"], card["model"]) == (task, f"torchvision:{student}")
    assert card["metrics"]["mask_ap" if task == "instance" else "box_ap"] >= 0
