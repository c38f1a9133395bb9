import re

import pytest
import torch
from PIL import Image
from torch import nn

import limbeck
from limbeck.data.inputs import Inputs
from limbeck.export.files import write
from limbeck.export.openvino import convert
from limbeck.export.program import program_of
from limbeck.tasks import task_kind
from limbeck.tasks.semantic.places import logits_of
from limbeck.training.record import save_student
from tests.places import ROOT

transformers = pytest.importorskip("transformers")

CLASSES = ["circle", "square", "triangle"]
SEGFORMER = {"depths": [1] * 4, "hidden_sizes": [8] * 4, "num_attention_heads": [1] * 4, "decoder_hidden_size": 8}
SIDES = {"short_side": 96, "long_side": 128}
RUNS = {
    "classifier": ("classification", "timm:test_resnet", {"load_size": 64, **vars(Inputs(64))}),
    "segmenter": ("semantic", "torchvision:lraspp_mobilenet_v3_large", {**SIDES, **vars(Inputs())}),
    "segformer": ("semantic", "hf:configuration", {**SIDES, **vars(Inputs())}),
    "detector": ("detection", "torchvision:fcos/timm:test_efficientnet", {**SIDES, **vars(Inputs())}),
}
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "production.md").read_text(), re.DOTALL)


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Makes a run below the working folder, and gives its student's module."""
    monkeypatch.chdir(tmp_path)
    transformers.SegformerConfig(**SEGFORMER).save_pretrained("configuration")
    Image.effect_noise((128, 96), 60).convert("RGB").save("photo.png")

    def made(name):
        task, model, card = RUNS[name]
        torch.manual_seed(0)
        built = task_kind(task).build(model, CLASSES)
        for path, parameter in built.module.named_parameters():
            if "cls_logits.bias" in path:  # an untrained detector is sure of nothing
                nn.init.constant_(parameter, 1.0)
        card = {"task": task, "model": model, "classes": CLASSES, **card}
        save_student(built.module, tmp_path / name / "student.safetensors", card)
        return built

    return made


def run(number):
    names = {"IMAGE": "photo.png"}
    exec(BLOCKS[number], names)
    return names


@pytest.mark.parametrize(("number", "name"), [(0, "classifier"), (1, "segmenter"), (2, "segformer")])
def test_a_student_is_loaded_by_its_own_library(make, number, name):
    expected = make(name).module.eval()
    images = torch.rand(2, 3, 64, 64)
    loaded = run(number)["model"]
    with torch.no_grad():
        given, wanted = (logits_of(model(images)) for model in (loaded, expected))  # a classifier's are a tensor
    assert torch.equal(given, wanted)


def write_onnx(built, name, path):
    built.module.eval()
    deployed = task_kind(RUNS[name][0]).deploy(built)
    write(program_of(deployed, None), deployed, {"size": deployed.size, **deployed.about}, path)


def test_an_exported_classifier_runs_in_onnxruntime(make, tmp_path):
    built = make("classifier")
    write_onnx(built, "classifier", tmp_path / "classifier.onnx")
    names = run(3)
    pixels = torch.from_numpy(names["pixels"]).permute(2, 0, 1)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (built.inputs.mean, built.inputs.std))
    with torch.no_grad():
        expected = built.module(((pixels - mean) / std)[None])
    torch.testing.assert_close(torch.from_numpy(names["logits"]), expected, rtol=1e-4, atol=1e-5)


def test_an_exported_classifier_runs_in_openvino(make, tmp_path):
    pytest.importorskip("openvino")
    built = make("classifier")
    built.module.eval()
    deployed = task_kind("classification").deploy(built)
    card = {"size": deployed.size, "classes": CLASSES}
    write(program_of(deployed, None), deployed, card, tmp_path / "made.onnx")
    convert(tmp_path / "made.onnx", tmp_path / "classifier.xml")
    names = run(5)
    assert names["classes"] == CLASSES
    expected = deployed.run(torch.from_numpy(names["pixels"]).permute(2, 0, 1)[None])["logits"]
    torch.testing.assert_close(torch.tensor(names["logits"]), expected, rtol=1e-4, atol=1e-5)


def test_an_exported_detector_finds_what_the_student_finds(make, tmp_path):
    write_onnx(make("detector"), "detector", tmp_path / "detector.onnx")
    imports = [line for line in BLOCKS[3].splitlines() if line.startswith(("import ", "from "))]
    names = {"IMAGE": "photo.png"}
    exec("\n".join([*imports, BLOCKS[4]]), names)
    found, expected = names["found"], limbeck.load("detector").predict("photo.png")
    real = expected["labels"] >= 0  # torchvision's FCOS scores the background, too
    assert real[:20].sum() >= 5
    for name in ("boxes", "scores"):
        torch.testing.assert_close(torch.from_numpy(found[name][:5]), expected[name][real][:5], rtol=1e-3, atol=0.1)


def test_every_program_of_the_page_is_short():
    assert len(BLOCKS) == 6
    assert max(sum(map(bool, block.splitlines())) for block in BLOCKS) <= 8
