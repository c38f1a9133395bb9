import json
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

import limbeck
from limbeck.cli import main
from limbeck.commands import predict
from limbeck.commands.coco_file import CocoFile
from limbeck.commands.predict import images_in
from limbeck.data.inputs import Inputs
from limbeck.models.run_folder import read_card
from limbeck.tasks import task_kind
from limbeck.tasks.detection.load import load_objects
from limbeck.tasks.detection.transforms import drawn
from limbeck.training.record import save_student
from tests.runs import mistake

CLASSES = ["circle", "square"]
MODELS = {
    "classification": ("timm:test_resnet", {"load_size": 64, **vars(Inputs(64))}),
    "semantic": ("torchvision:lraspp_mobilenet_v3_large", {"short_side": 64, **vars(Inputs())}),
    "detection": ("torchvision:fcos/timm:test_efficientnet", {"short_side": 64, "long_side": 128, **vars(Inputs())}),
    "instance": ("torchvision:maskrcnn/timm:test_resnet", {"short_side": 64, "long_side": 128, **vars(Inputs())}),
}


@pytest.fixture(params=MODELS)
def run(request, tmp_path):
    """A run folder of each kind of task."""
    model, inputs = MODELS[request.param]
    torch.manual_seed(0)
    module = task_kind(request.param).build(model, CLASSES).module
    if request.param == "detection":  # an untrained one is sure of nothing
        torch.nn.init.constant_(module.head.classification_head.cls_logits.bias, 1.0)
    card = {"task": request.param, "model": model, "classes": CLASSES, **inputs}
    save_student(module, tmp_path / "run" / "student.safetensors", card)
    return tmp_path / "run"


def task_of(run):
    return read_card(run / "student.safetensors")["task"]


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    noise = torch.Generator().manual_seed(0)
    for name, size in (("a.png", (70, 90, 3)), ("more/b.jpg", (128, 64, 3))):
        pixels = torch.randint(256, size, dtype=torch.uint8, generator=noise)
        Image.fromarray(pixels.numpy()).save(folder / name)
    return folder


def test_a_run_predicts_the_images_of_a_folder_in_their_own_pixels(run, photos, tmp_path, capsys):
    main(["predict", str(run), str(photos), "--out", str(tmp_path / "out")])
    assert capsys.readouterr().out.startswith("2 images: ")
    answers = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert sorted(answers) == ["a", "more/b"]
    with Image.open(tmp_path / "out" / "pictures" / "more" / "b.png") as drawn:
        assert drawn.size == (64, 128)
    model = limbeck.load(run)
    prediction = model.predict(photos / "a.png")
    expected = {"image": str(photos / "a.png"), **model.describe(prediction)}
    assert answers["a"] == json.loads(json.dumps(expected))
    assert (tmp_path / "out" / "pictures" / "classes.png").exists() == ("mask" in prediction)
    if "mask" in prediction:
        with Image.open(tmp_path / "out" / "masks" / "a.png") as mask:
            assert mask.size == (90, 70)
    if "boxes" in prediction:
        assert 64 < prediction["boxes"].max() <= 90.1  # not in the pixels that the model sees
    if "probabilities" in prediction:
        assert set(answers["a"]["probabilities"]) == set(CLASSES)


@pytest.mark.parametrize("run", ["detection", "instance"], indirect=True)
def test_what_detectors_find_is_cocos_json_as_well_which_limbeck_trains_on(run, photos, tmp_path):
    model = limbeck.load(run)
    main(["predict", str(run), str(photos), "--out", str(tmp_path / "out")])
    written = json.loads((tmp_path / "out" / "coco.json").read_text())
    assert [(each["file_name"], each["height"], each["width"]) for each in written["images"]] == [
        ("a.png", 70, 90),
        ("more/b.jpg", 128, 64),
    ]
    assert [each["name"] for each in written["categories"]] == CLASSES
    (tmp_path / "annotations").mkdir()
    shutil.copy(tmp_path / "out" / "coco.json", tmp_path / "annotations" / "train.json")
    photos.rename(tmp_path / "train")
    outlines = task_of(run) == "instance"
    read, _ = load_objects(tmp_path, val_data=tmp_path, outlines=outlines)
    for image in read.images:
        found = model.predict(image.path)
        kept, there = of_a_pixel(image.boxes), of_a_pixel(found["boxes"])
        if outlines:  # one without a pixel is not written either
            there &= found["masks"].flatten(1).any(1)
        assert there.any()
        torch.testing.assert_close(image.boxes[kept], found["boxes"][there], atol=0.02, rtol=0)
        assert torch.equal(image.labels[kept], found["labels"][there])
        if outlines:
            assert torch.equal(drawn(image, kept).bool(), found["masks"][there])


def of_a_pixel(boxes):
    """Boxes with some extent: an untrained detector gives empty ones, too, which are not written."""
    return (boxes[:, 2:] - boxes[:, :2] > 1).all(1)


@pytest.mark.parametrize("run", ["instance"], indirect=True)
def test_a_second_prediction_leaves_no_mask_of_the_first(run, photos, tmp_path):
    masks = tmp_path / "out" / "masks"
    masks.mkdir(parents=True)
    for name in ("a-999.png", "a-1-000.png", "b-000.png"):
        (masks / name).touch()
    main(["predict", str(run), str(photos), "--out", str(tmp_path / "out")])
    assert not (masks / "a-999.png").exists()
    assert (masks / "a-1-000.png").exists()
    assert (masks / "b-000.png").exists()
    objects = json.loads((tmp_path / "out" / "predictions.json").read_text())["a"]["objects"]
    assert len(list(masks.glob("a-[0-9][0-9][0-9].png"))) == len(objects)


@pytest.mark.parametrize("run", ["detection"], indirect=True)
def test_the_least_score_of_what_is_drawn_is_chosen(run, photos, tmp_path):
    def drawn_with(*options):
        main(["predict", str(run), str(photos / "a.png"), "--out", str(tmp_path / "out"), *options])
        with Image.open(tmp_path / "out" / "pictures" / "a.png") as picture:
            return np.asarray(picture)

    plain = np.asarray(Image.open(photos / "a.png"))
    assert (drawn_with("--score", "1") == plain).all()
    assert (drawn_with("--score", "0") != plain).any()


@pytest.mark.parametrize("run", ["classification"], indirect=True)
def test_the_student_of_the_end_is_named_by_its_file(run, photos, tmp_path):
    last = (run / "student.safetensors").rename(run / "student-last.safetensors")
    assert limbeck.load(last).classes == CLASSES
    main(["predict", str(last), str(photos), "--out", str(tmp_path / "out")])
    assert (tmp_path / "out" / "predictions.json").is_file()


@pytest.mark.parametrize(("name", "written"), [("Käfer", "Käfer"), ("\udcff", "\\udcff")], ids=["text", "no text"])
def test_names_are_written_as_they_are_read(name, written, tmp_path):
    file = predict._write({name: {"image": "x"}}, None, tmp_path / "out", CocoFile([]), pictures=False)
    assert f'"{written}"' in file.read_text(encoding="utf-8")
    assert json.loads(file.read_bytes()) == {name: {"image": "x"}}


def test_an_image_is_predicted_alike_as_file_picture_array_and_tensor(run, photos):
    model = limbeck.load(str(run))
    with Image.open(photos / "a.png") as picture:
        pixels = np.asarray(picture)
        others = [model.predict(image) for image in (picture, pixels, torch.tensor(pixels).permute(2, 0, 1))]
    for name, value in model.predict(photos / "a.png").items():
        assert all(torch.equal(value, other[name]) for other in others)
    with pytest.raises(ValueError, match=r"a tensor \(3, H, W\) of uint8, not \(1, 5, 5\)"):
        model.predict(torch.zeros(1, 5, 5))
    with pytest.raises(ValueError, match=r"an array \(H, W, 3\) of uint8, not \(3, 5, 5\) of float64"):
        model.predict(np.zeros((3, 5, 5)))
    with pytest.raises(ValueError, match=r"at least one pixel, which \(3, 0, 5\) has not"):
        model.predict(np.zeros((0, 5, 3), np.uint8))
    with pytest.raises(TypeError, match="an image is a path, a tensor, an array of numpy or PIL's, not list"):
        model.predict([str(photos / "a.png")])


@pytest.mark.parametrize("run", ["detection"], indirect=True)
def test_pictures_of_pil_are_upright_and_have_their_bits_as_files_have(run, tmp_path):
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    noise = Image.effect_noise((90, 70), 60)
    noise.save(tmp_path / "turned.png", exif=turned)
    Image.fromarray(np.asarray(noise).astype(np.uint16) * 256).save(tmp_path / "deep.tif")
    Image.fromarray(np.asarray(noise).astype(np.float32) / 255).save(tmp_path / "shares.tif")
    model = limbeck.load(run)
    for file in tmp_path.glob("*.[pt]*"):
        with Image.open(file) as picture:
            from_picture = model.predict(picture)
        from_file = model.predict(file)
        assert from_file["boxes"].numel()
        assert all(torch.equal(value, from_picture[name]) for name, value in from_file.items()), file.name


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("run", ["classification"], indirect=True)
def test_a_signal_leaves_what_was_predicted_before(run, photos, tmp_path, capsys, monkeypatch, number):
    read = predict.read_image
    monkeypatch.setattr(predict, "read_image", lambda f: read(f) if f.name == "a.png" else os.kill(os.getpid(), number))
    with pytest.raises(SystemExit) as stop:
        main(["predict", str(run), str(photos), "--out", str(tmp_path / "out")])
    assert stop.value.code == 128 + number
    assert list(json.loads((tmp_path / "out" / "predictions.json").read_text())) == ["a"]
    assert ("interrupted; what was predicted before, 1 of " in capsys.readouterr().err) == (number == signal.SIGINT)


@pytest.mark.parametrize("run", ["classification"], indirect=True)
def test_an_image_that_cannot_be_read_is_an_error_or_counted(run, photos, tmp_path, capsys):
    (photos / "c.jpg").write_bytes(b"no image")
    command = ["predict", str(run), str(photos), "--out", str(tmp_path / "out")]
    said = mistake(command, capsys)
    assert "c.jpg" in said
    assert "what was predicted before, 1 of 3 images, is in " in said
    assert list(json.loads((tmp_path / "out" / "predictions.json").read_text())) == ["a"]
    main([*command, "--no-pictures", "--on-bad-data", "skip"])
    assert capsys.readouterr().out.startswith("2 images, 1 left out that cannot be read: ")


def test_what_cannot_be_predicted_says_why(photos, tmp_path, capsys):
    command = ["predict", str(tmp_path), str(photos), "--out", str(tmp_path / "out")]
    assert "name the folder of a run" in mistake(command, capsys)
    with pytest.raises(ValueError, match="name the images, or folders of images"):
        images_in([])
    with pytest.raises(ValueError, match="no file or folder"):
        images_in([tmp_path / "nothing"])
    with pytest.raises(ValueError, match="would both be written as a"):
        images_in([photos, photos / "a.png"])
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "a.jp2").touch()
    with pytest.raises(ValueError, match=r"others holds no image \(its files end in \.jp2\); the endings read are"):
        images_in([tmp_path / "others"])


def test_images_that_differ_in_their_ending_alone_keep_it(photos):
    (photos / "a.jpg").touch()
    assert images_in([photos]) == {
        "a.jpg": photos / "a.jpg",
        "a.png": photos / "a.png",
        "more/b": photos / "more" / "b.jpg",
    }


def test_what_an_earlier_prediction_wrote_among_the_photos_is_left_out(run, photos, capsys):
    command = ["predict", str(run), str(photos), "--out", str(photos)]
    main(command)
    first = json.loads((photos / "predictions.json").read_text())
    assert "left out" not in capsys.readouterr().err
    main(command)
    assert json.loads((photos / "predictions.json").read_text()) == first
    assert f"pictures and masks below {photos}, which an earlier prediction wrote" in capsys.readouterr().err
