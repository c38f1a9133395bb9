import json
from dataclasses import asdict

import pytest
import safetensors.torch
import torch

from limbeck.data.inputs import Inputs
from limbeck.tasks.classification.models import build_classifier
from tests.places import ROOT

CLASSES = ["cat", "dog", "emu"]


def save(model, path, card=None):
    metadata = {"limbeck": json.dumps(card)} if card else None
    safetensors.torch.save_file(model.state_dict(), path, metadata)
    return str(path)


def test_timm_models_bring_their_own_size_and_normalisation():
    built = build_classifier("timm:tf_efficientnet_lite0", CLASSES)
    model, inputs = built.module, built.inputs
    assert inputs.size == 224
    assert inputs.mean == (0.5, 0.5, 0.5)
    assert model.classifier.out_features == 3


def test_a_vision_transformer_is_built_for_the_size_asked_for():
    built = build_classifier("timm:vit_tiny_patch16_224", CLASSES, size=32)
    model, inputs = built.module, built.inputs
    assert inputs.size == 32
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 3)


def test_torchvision_models_and_functions_of_a_file(tmp_path):
    built = build_classifier("torchvision:mobilenet_v3_small", CLASSES, size=32)
    model, inputs = built.module, built.inputs
    assert inputs.size == 32
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 3)
    (tmp_path / "net.py").write_text("from torch import nn\ndef small(num_classes): return nn.Linear(2, num_classes)\n")
    model = build_classifier(f"{tmp_path}/net.py:small", CLASSES).module
    assert model.out_features == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:resnt18", r"timm has no model 'resnt18'; nearest: resnet18"),
        ("torchvision:resnt18", r"torchvision has no classifier 'resnt18'; nearest: resnet18"),
        ("resnet18", r"no model 'resnet18' for classification: write timm:NAME, torchvision:NAME, FILE.py:FUNCTION"),
        ("resnet18", r"did you mean timm:resnet18 or torchvision:resnet18\?"),
        ("mynet", r"or the folder of a finished run$"),
        ("runs/moved", r"or the folder of a finished run; there is no folder runs/moved$"),
        (
            f"{ROOT}/README.md",
            r"; a file of weights goes beside the model's name, as --weights, ",
        ),
        ("net.py:small", r"no file net.py"),
    ],
)
def test_a_name_that_is_none_says_what_would_be(name, message):
    with pytest.raises(ValueError, match=message):
        build_classifier(name, CLASSES)


def test_a_run_folder_brings_its_weights_and_refuses_other_classes(tmp_path):
    model = build_classifier("timm:resnet10t", CLASSES).module
    card = {"task": "classification", "model": "timm:resnet10t", "classes": CLASSES, **asdict(Inputs(32))}
    save(model, tmp_path / "student.safetensors", card)
    built = build_classifier(str(tmp_path), CLASSES)
    again, inputs = built.module, built.inputs
    assert inputs.size == 32
    assert torch.equal(again.fc.weight, model.fc.weight)
    with pytest.raises(ValueError, match="knows the classes"):
        build_classifier(str(tmp_path), ["dog", "cat", "emu"])
