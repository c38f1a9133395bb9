import json
import os
import signal
import struct
from xml.etree import ElementTree

import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from PIL import Image

from limbeck.cli import main
from limbeck.commands import export
from limbeck.export import files
from limbeck.tasks import task_kind
from limbeck.training.record import save_student
from tests.runs import mistake

CLASSES = ["dark", "light"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of a classifier, and ten images of each class, in folders whose names have spaces."""
    folder = tmp_path_factory.mktemp("a run")
    for part in ("train", "val"):
        for label, shade in zip(CLASSES, (40, 200), strict=True):
            (folder / "data" / part / label).mkdir(parents=True)
            for number in range(5):
                noise = Image.effect_noise((32, 32), 30).point(lambda value, shade=shade: value // 2 + shade // 2)
                noise.convert("RGB").save(folder / "data" / part / label / f"{number}.png")
    torch.manual_seed(0)
    card = {"task": "classification", "model": "timm:test_resnet", "classes": CLASSES, "size": 32, "load_size": 32}
    card |= {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3], "data_seed": 0}
    module = task_kind("classification").build("timm:test_resnet", CLASSES, 32).module
    for name in ("student", "student-last"):
        torch.nn.init.normal_(module.get_classifier().weight)
        save_student(module, folder / "run" / f"{name}.safetensors", card)
    return folder


@pytest.fixture(scope="module")
def exported(folder):
    main(["export", str(folder / "run"), str(folder / "student.onnx"), "--data", str(folder / "data")])
    return folder / "student.onnx"


def arguments(folder, file, *more):
    return ["export", str(folder / "run"), str(file), "--data", str(folder / "data"), *more]


def test_the_file_takes_rgb_in_0_to_1_and_says_of_itself_what_a_program_must_know(folder, exported):
    session = onnxruntime.InferenceSession(str(exported))
    assert session.get_inputs()[0].shape == ["batch", 3, 32, 32]
    card = {name: json.loads(value) for name, value in session.get_modelmeta().custom_metadata_map.items()}
    assert card["classes"] == CLASSES
    assert (card["mean"], card["std"]) == ([0.4, 0.5, 0.6], [0.2, 0.25, 0.3])
    assert (card["size"], card["outputs"], card["precision"]) == ([32, 32], ["logits"], "fp32")
    model = task_kind("classification").build(str(folder / "run"), [])
    images = torch.rand(4, 3, 32, 32)
    mean, std = (torch.tensor(card[name]).view(3, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        expected = model.module.eval()((images - mean) / std)
    given = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-5)


def test_a_file_in_which_one_weight_was_changed_fails_parity(folder, exported, tmp_path, capsys):
    main(arguments(folder, exported, "--check"))
    shown = capsys.readouterr().out
    assert "logits: largest difference" in shown
    assert "top1 on 10 validation images" in shown
    model = onnx.load(exported)
    tensor = max(model.graph.initializer, key=lambda each: len(each.dims) * 1000 + each.dims[0])
    changed = numpy_helper.to_array(tensor).copy()
    changed.flat[0] += 1
    tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))
    onnx.save(model, tmp_path / "tampered.onnx")
    assert "logits: largest difference" in mistake(arguments(folder, tmp_path / "tampered.onnx", "--check"), capsys)


def test_a_file_of_another_student_is_told(folder, exported, capsys):
    said = mistake(arguments(folder, exported, "--check", "--weights", "last"), capsys)
    assert "was exported from another student" in said


def test_what_loses_too_much_is_not_written(folder, tmp_path, capsys):
    file = tmp_path / "out" / "student.onnx"
    assert "was not written" in mistake(arguments(folder, file, "--max-loss", "-0.1"), capsys)
    assert not list(file.parent.iterdir())


@pytest.mark.parametrize("option", ["--half", "--int8"])
def test_lower_precision_is_judged_by_the_metric(folder, option, tmp_path, capsys):
    file = tmp_path / "student.onnx"
    main(arguments(folder, file, option, "--max-loss", "0.3"))
    assert "top1 on 10 validation images" in capsys.readouterr().out
    kinds = {tensor.data_type for tensor in onnx.load(file).graph.initializer}
    assert {"--half": onnx.TensorProto.FLOAT16, "--int8": onnx.TensorProto.INT8}[option] in kinds
    main(arguments(folder, file, "--check", "--max-loss", "0.3"))
    assert not list(tmp_path.glob(".*"))


def test_a_pt2_runs_in_torch_alone(folder, tmp_path, capsys):
    file = tmp_path / "student.pt2"
    main(arguments(folder, file))
    assert "logits: largest difference" in capsys.readouterr().out
    extra = {"limbeck.json": ""}
    program = torch.export.load(file, extra_files=extra)
    assert json.loads(extra["limbeck.json"])["classes"] == CLASSES
    assert program.module()(torch.rand(5, 3, 32, 32))[0].shape == (5, 2)
    with torch.no_grad():
        next(value for value in program.state_dict.values() if value.ndim == 4).view(-1)[0] += 1
    torch.export.save(program, tmp_path / "tampered.pt2", extra_files=extra)
    assert "logits: largest difference" in mistake(arguments(folder, tmp_path / "tampered.pt2", "--check"), capsys)


def test_openvino_runs_the_file_and_a_changed_weight_is_found(folder, tmp_path, capsys):
    openvino = pytest.importorskip("openvino")
    file = tmp_path / "out" / "student.xml"
    main(arguments(folder, file))
    assert "logits: largest difference" in capsys.readouterr().out
    assert sorted(path.name for path in file.parent.iterdir()) == ["student.bin", "student.xml"]
    model = openvino.Core().read_model(file)
    assert json.loads(model.get_rt_info(["framework", "classes"]).value) == CLASSES
    given = openvino.compile_model(model, "CPU")({"images": torch.rand(5, 3, 32, 32).numpy()})
    assert given["logits"].shape == (5, 2)
    constants = [each.find("data") for each in ElementTree.parse(file).iter("layer") if each.get("type") == "Const"]
    convolution = next(
        data for data in constants if data.get("shape").count(",") == 3 and ", 3, 3, 3" in data.get("shape")
    )
    weights = file.with_suffix(".bin")
    stored, offset = bytearray(weights.read_bytes()), int(convolution.get("offset"))
    stored[offset : offset + 4] = struct.pack("f", struct.unpack_from("f", stored, offset)[0] + 1)
    weights.write_bytes(stored)
    assert "logits: largest difference" in mistake(arguments(folder, file, "--check"), capsys)


def test_openvino_in_int8_for_a_fixed_number_of_images_is_judged_by_the_metric(folder, tmp_path, capsys):
    openvino = pytest.importorskip("openvino")
    file = tmp_path / "student.xml"
    main(arguments(folder, file, "--int8", "--batch", "2", "--max-loss", "0.3"))
    assert "top1 on 10 validation images" in capsys.readouterr().out
    kinds = {each.get_type_name() for each in openvino.Core().read_model(file).get_ops()}
    assert "FakeQuantize" in kinds


def test_openvino_in_half_precision_has_the_names_of_the_outputs(folder, tmp_path, capsys):
    openvino = pytest.importorskip("openvino")
    file = tmp_path / "student.xml"
    main(arguments(folder, file, "--half", "--max-loss", "0.3"))
    assert "top1 on 10 validation images" in capsys.readouterr().out
    assert openvino.Core().read_model(file).output("logits").get_names() == {"logits"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_an_export_that_a_signal_ends_leaves_nothing_behind(folder, tmp_path, capsys, monkeypatch, number):
    before = signal.getsignal(number)
    monkeypatch.setattr(export, "program_of", lambda *_: os.kill(os.getpid(), number))
    with pytest.raises(SystemExit) as stop:
        main(arguments(folder, tmp_path / "student.onnx"))
    assert stop.value.code == 128 + number
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(number) is before
    said = capsys.readouterr()
    assert "tracing the student" in said.out
    assert said.err == ("limbeck: interrupted\n" if number == signal.SIGINT else "")


def test_what_is_not_installed_is_named_with_its_extra(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(files, "find_spec", lambda name: None if name == "openvino" else name)
    said = mistake(arguments(folder, tmp_path / "student.xml"), capsys)
    assert "needs openvino: pip install 'limbeck[openvino]'" in said


@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        ("student.pth", [], "should end with .onnx, .pt2, .xml, which says what is written (.xml: of OpenVINO)"),
        ("student.pt2", ["--half"], "--half and --int8 are of .onnx and .xml; a .pt2 is in float32"),
        ("student.onnx", ["--half", "--int8"], "pass one of them"),
        ("student.onnx", ["--images", "0"], "images is 0; it must be 1 or more"),
        ("student.onnx", ["--size", "64", "64"], "the student takes images of 32 32 alone; leave it out"),
        ("nothing.onnx", ["--check"], "no file"),
    ],
)
def test_what_cannot_be_exported_says_what_to_write(folder, tmp_path, capsys, name, more, said):
    assert said in mistake(arguments(folder, tmp_path / name, *more), capsys)
