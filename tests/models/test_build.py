import json
from dataclasses import asdict

import pytest
import safetensors.torch
import torch
from torch import nn

from limbeck.data.inputs import Inputs
from limbeck.models.checkpoints import load_weights
from limbeck.tasks.classification.models import build_classifier

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
        ("net.py:small", r"no file net.py"),
    ],
)
def test_a_name_that_is_none_says_what_would_be(name, message):
    with pytest.raises(ValueError, match=message):
        build_classifier(name, CLASSES)


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_weights_are_loaded_from_either_kind_of_file(tmp_path, suffix):
    source, target = nn.Linear(2, 3), nn.Linear(2, 3)
    path = tmp_path / f"weights.{suffix}"
    if suffix == "pth":
        torch.save({"state_dict": {f"module.{key}": value for key, value in source.state_dict().items()}}, path)
    else:
        save(source, path)
    assert load_weights(target, str(path)) == []
    assert torch.equal(target.weight, source.weight)


def test_missing_unexpected_and_misshapen_tensors_are_named(tmp_path):
    path = save(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4)), tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match=r"0 tensors missing, 2 tensors \(1.bias, 1.weight\) unexpected"):
        load_weights(nn.Sequential(nn.Linear(2, 3)), path)
    with pytest.raises(ValueError, match=r"2 tensors \(2.bias, 2.weight\) missing, 0 tensors unexpected"):
        load_weights(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4), nn.Linear(4, 4)), path)
    with pytest.raises(
        ValueError, match=r"\(1.bias \(4,\) for \(5,\), 1.weight \(4, 3\) for \(5, 3\)\) of another shape"
    ):
        load_weights(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 5)), path)


def test_a_classifier_for_other_classes_is_left_out_where_that_is_asked_for(tmp_path):
    source, target = (nn.Sequential(nn.Linear(2, 3), nn.Linear(3, classes)) for classes in (4, 5))
    path = save(source, tmp_path / "weights.safetensors")
    assert load_weights(target, path, new_head=True) == ["1.bias", "1.weight"]
    assert torch.equal(target[0].weight, source[0].weight)
    with pytest.raises(ValueError, match="of another shape"):  # two layers differ: that is no new head
        load_weights(nn.Sequential(nn.Linear(2, 7), nn.Linear(7, 5)), path, new_head=True)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path):
    class Code:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"state_dict": Code()}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"weights.pth holds more than tensors.*refused"):
        load_weights(nn.Linear(2, 3), str(tmp_path / "weights.pth"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
def test_a_damaged_file_of_weights_is_named(tmp_path, name):
    path = tmp_path / name
    if path.suffix == ".pth":
        torch.save(nn.Linear(2, 3).state_dict(), path)
    else:
        save(nn.Linear(2, 3), path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match=name):
        load_weights(nn.Linear(2, 3), str(path))
    with pytest.raises(ValueError, match="no weights at"):
        load_weights(nn.Linear(2, 3), str(tmp_path / "nothing"))


def test_published_weights_that_cannot_be_had_are_an_error():
    with pytest.raises(ValueError, match="nothing publishes weights"):
        load_weights(nn.Linear(2, 3), "pretrained", name="net.py:small")


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
