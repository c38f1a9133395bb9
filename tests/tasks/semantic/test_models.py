import importlib
import json
import sys
from dataclasses import asdict

import pytest
import safetensors.torch
import timm
import torch
from torch import nn

from limbeck.core.capture import Capture, Layer
from limbeck.data.inputs import Inputs
from limbeck.models.backbone import load_backbone
from limbeck.models.model import Model
from limbeck.tasks.semantic.models import build_segmenter
from limbeck.tasks.semantic.places import before_classifier, logits_of

CLASSES = ["road", "car", "sky"]
TINY = "tu-mobilenetv3_small_050"
LRASPP, DEEPLAB = "torchvision:lraspp_mobilenet_v3_large", "torchvision:deeplabv3_mobilenet_v3_large"
LAST = {  # by model: the layer whose input is the last map
    f"smp:PSPNet/{TINY}": "decoder.dropout",
    f"smp:FPN/{TINY}": "decoder.dropout",
    f"smp:Unet/{TINY}": "segmentation_head.0",
    f"smp:DeepLabV3Plus/{TINY}": "segmentation_head.0",
    LRASPP: "classifier.high_classifier",
    DEEPLAB: "classifier.4",
}
SEGFORMER = {
    "depths": [1, 1, 1, 1],
    "hidden_sizes": [8, 8, 16, 16],
    "num_attention_heads": [1, 1, 2, 2],
    "sr_ratios": [8, 4, 2, 1],
    "decoder_hidden_size": 24,
}
FUNCTION = """
from torch import nn


def small(num_classes):
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, num_classes, 1), nn.Upsample(scale_factor=2))
"""


def logits(model, size=64):
    with torch.no_grad():
        return logits_of(model.eval()(torch.zeros(1, 3, size, size)))


def taken_by(model, layer):
    """Shape of what the layer's module takes when the model sees an image of 64 px."""
    seen = []
    hook = model.get_submodule(layer.path).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    logits(model)
    hook.remove()
    return tuple(seen[-1])


@pytest.fixture
def segformer(tmp_path):
    """A folder with the configuration of a SegFormer alone."""
    transformers = pytest.importorskip("transformers")
    transformers.SegformerConfig(**SEGFORMER).save_pretrained(tmp_path / "configuration")
    return tmp_path / "configuration"


@pytest.fixture
def trained_segformer(tmp_path):
    """A folder with the weights of a SegFormer for five classes, and the model itself."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(1)
    model = transformers.SegformerForSemanticSegmentation(transformers.SegformerConfig(num_labels=5, **SEGFORMER))
    model.save_pretrained(tmp_path / "trained")
    return tmp_path / "trained", model


@pytest.mark.parametrize(("name", "last"), LAST.items())
def test_a_segmenter_gives_the_classes_and_its_last_map_is_what_their_convolution_takes(name, last):
    built = build_segmenter(name, CLASSES)
    model, inputs = built.module, built.inputs
    assert logits(model).shape == (1, 3, 64, 64)
    assert 64 % inputs.multiple == 0
    layer = before_classifier(model)
    assert layer == Layer(last, input=True)
    head = next(module for path, module in reversed(dict(model.named_modules()).items()) if is_head(path, module))
    assert taken_by(model, layer)[1] == head.in_channels


def is_head(path, module):
    return isinstance(module, nn.Conv2d) and module.out_channels == 3 and not path.startswith("aux")


def test_the_last_map_is_read_before_a_dropout_so_training_does_not_disturb_it():
    model = build_segmenter(f"smp:PSPNet/{TINY}", CLASSES).module
    capture = Capture(model.eval(), [before_classifier(model), Layer("segmentation_head.0", input=True)])
    model.decoder.dropout.train()
    _, features = capture(torch.randn(1, 3, 64, 64))
    before, after = features.values()
    dropped = (after == 0).flatten(2).all(2)
    assert dropped.any()
    assert before[dropped].any()


def test_the_last_map_is_found_whatever_mode_a_model_is_in_and_leaves_it_so():
    model = build_segmenter(DEEPLAB, CLASSES).module  # its norms of 1x1 maps cannot be trained with one image
    model.train()
    before_classifier(model)
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_an_auxiliary_head_is_not_the_classifier():
    model = build_segmenter(DEEPLAB, CLASSES).module
    assert model.eval()(torch.zeros(1, 3, 64, 64))["aux"].shape == (1, 3, 64, 64)
    assert before_classifier(model).path.startswith("classifier")


def test_a_model_without_a_convolution_for_its_classes_is_refused():
    with pytest.raises(ValueError, match="Sequential has no convolution that makes its classes; name the layers"):
        before_classifier(nn.Sequential(nn.Conv2d(3, 12, 3), nn.PixelShuffle(2)))


def test_a_model_says_of_what_its_images_have_to_be_multiples():
    multiples = {name: build_segmenter(name, CLASSES).inputs.multiple for name in LAST}
    assert list(multiples.values()) == [8, 32, 32, 16, 1, 1]
    built = build_segmenter(f"smp:PSPNet/{TINY}", CLASSES)
    model, inputs = built.module, built.inputs
    logits(model, size=5 * inputs.multiple)
    with pytest.raises(RuntimeError, match="divisible by 8"):
        logits(model, size=5 * inputs.multiple + 4)


def test_an_encoder_of_timm_brings_its_normalisation():
    inputs = build_segmenter("smp:Unet/tu-tf_efficientnet_lite0", CLASSES).inputs
    assert (inputs.mean, inputs.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_a_configuration_of_transformers_is_built_for_the_classes_of_the_data(segformer):
    built = build_segmenter(f"hf:{segformer}", CLASSES)
    model, inputs = built.module, built.inputs
    assert logits(model).shape == (1, 3, 16, 16)
    assert model.config.id2label == dict(enumerate(CLASSES))
    assert inputs.mean == (0.485, 0.456, 0.406)
    layer = before_classifier(model)
    assert layer == Layer("decode_head.dropout", input=True)
    assert taken_by(model, layer) == (1, 24, 16, 16)


def test_a_folder_of_transformers_brings_its_weights_but_for_a_classifier_for_other_classes(trained_segformer):
    folder, trained = trained_segformer
    model = build_segmenter(f"hf:{folder}", CLASSES).module
    assert model.config.id2label == dict(enumerate(CLASSES))
    assert logits(model).shape == (1, 3, 16, 16)
    own = model.state_dict()
    other = [key for key, value in trained.state_dict().items() if not torch.equal(value, own[key])]
    assert other == ["decode_head.classifier.weight", "decode_head.classifier.bias"]
    same = build_segmenter(f"hf:{folder}", ["road", "car", "sky", "tree", "pole"]).module
    assert torch.equal(logits(same), logits(trained))


def test_a_folder_of_transformers_brings_its_normalisation(trained_segformer):
    folder, _ = trained_segformer
    card = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    (folder / "preprocessor_config.json").write_text(json.dumps(card))
    inputs = build_segmenter(f"hf:{folder}", CLASSES).inputs
    assert (inputs.mean, inputs.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_a_function_of_a_file_is_called_with_the_number_of_classes(tmp_path):
    (tmp_path / "net.py").write_text(FUNCTION)
    built = build_segmenter(f"{tmp_path}/net.py:small", CLASSES)
    model, inputs = built.module, built.inputs
    assert logits(model, size=10).shape == (1, 3, 16, 16)
    assert inputs.multiple == 1
    assert before_classifier(model) == Layer("2", input=True)


def test_a_run_folder_brings_its_weights_and_refuses_other_classes(tmp_path):
    name = f"smp:PSPNet/{TINY}"
    model = build_segmenter(name, CLASSES).module
    card = {"task": "semantic", "model": name, "classes": CLASSES, **asdict(Inputs())}
    safetensors.torch.save_file(
        model.state_dict(), tmp_path / "student.safetensors", metadata={"limbeck": json.dumps(card)}
    )
    built = build_segmenter(str(tmp_path), CLASSES)
    again, inputs = built.module, built.inputs
    assert inputs.multiple == 8
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in again.state_dict().items())
    with pytest.raises(ValueError, match=r"knows the classes \['road', 'car', 'sky'\].*the data has \['car'"):
        build_segmenter(str(tmp_path), ["car", "road", "sky"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smp:PSPnt/resnet18", r"no segmenter smp:PSPnt/resnet18: write smp:ARCH/ENCODER; architectures: PSPNet"),
        ("smp:nothing/resnet18", r"architectures: Unet, .*PSPNet, DeepLabV3, "),
        ("smp:Unet", r"no encoder '' in smp:Unet: write smp:Unet/ENCODER, such as resnet18"),
        ("smp:Unet/resnt18", r"no encoder 'resnt18' in smp:Unet/resnt18: .* nearest: resnet18"),
        ("smp:Unet/tu-resnt18", r"no encoder 'tu-resnt18' .* nearest: tu-resnet18"),
        ("torchvision:deeplabv3", r"torchvision has no segmenter 'deeplabv3'; it has deeplabv3_mobilenet_v3_large"),
        ("torchvision:resnet18", r"torchvision has no segmenter 'resnet18'; it has .*lraspp_mobilenet_v3_large"),
        (
            "timm:resnet18",
            r"no model 'timm:resnet18' for semantic: write smp:ARCH/ENCODER, torchvision:NAME, hf:F",
        ),
        (
            "unet",
            r"no model 'unet' for semantic: write smp:ARCH/ENCODER, torchvision:NAME, hf:FOLDER, FILE.py",
        ),
        ("net.py:small", r"no file net.py"),
    ],
)
def test_a_name_that_is_none_says_what_would_be(name, message):
    with pytest.raises(ValueError, match=message):
        build_segmenter(name, CLASSES)


def test_a_folder_without_a_configuration_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no .*config.json; hf: takes the folder of a model, or of its configuration"):
        build_segmenter(f"hf:{tmp_path}", CLASSES)


@pytest.mark.parametrize(
    ("module", "name", "extra"),
    [("segmentation_models_pytorch", f"smp:Unet/{TINY}", "smp"), ("transformers", "hf:folder", "hf")],
)
def test_a_package_that_is_not_installed_is_named_with_how_to_get_it(monkeypatch, module, name, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError):
        importlib.import_module(module)
    with pytest.raises(ValueError, match=rf"pip install 'limbeck\[{extra}\]'"):
        build_segmenter(name, CLASSES)


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize(
    ("segmenter", "classifier"),
    [(f"smp:PSPNet/{TINY}", "mobilenetv3_small_050"), ("smp:FPN/tu-resnet10t", "resnet10t")],
)
def test_every_tensor_of_an_encoder_is_loaded_from_a_file_of_its_classifier(tmp_path, segmenter, classifier, suffix):
    state = timm.create_model(classifier).state_dict()
    state = {key: torch.randn_like(value) if value.is_floating_point() else value + 7 for key, value in state.items()}
    path = tmp_path / f"weights.{suffix}"
    torch.save(state, path) if suffix == "pth" else safetensors.torch.save_file(state, path)
    built = build_segmenter(segmenter, CLASSES)
    model = built.module
    before = {key: value.clone() for key, value in model.state_dict().items() if not key.startswith("encoder.")}
    encoder = model.encoder.state_dict()
    assert load_backbone(built, str(path)) == len(encoder) > 40
    for key, value in encoder.items():  # the same storage as the model's
        assert torch.equal(value, state[key.removeprefix("model.")]), key
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items()), "nothing else changed"


def test_every_tensor_of_the_encoder_of_a_model_of_transformers_is_loaded(tmp_path, segformer, trained_segformer):
    _, trained = trained_segformer
    torch.save(trained.segformer.state_dict(), tmp_path / "weights.pth")
    built = build_segmenter(f"hf:{segformer}", CLASSES)
    assert load_backbone(built, str(tmp_path / "weights.pth")) == len(trained.segformer.state_dict())
    for key, value in trained.segformer.state_dict().items():
        assert torch.equal(built.module.segformer.state_dict()[key], value), key


def test_a_file_of_another_backbone_is_refused_and_nothing_of_it_loaded(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(timm.create_model("mobilenetv3_small_050").state_dict(), path)
    built = build_segmenter("smp:PSPNet/tu-resnet10t", CLASSES)
    model = built.module
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"weights.pth does not fit the encoder of PSPNet: \d+ of 48 tensors are not"):
        load_backbone(built, str(path))
    torch.save(timm.create_model("resnet14t").state_dict(), path)  # the same names, but for some, in other shapes
    with pytest.raises(ValueError, match=r"is it a file of this very backbone\?"):
        load_backbone(built, str(path))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_backbone_needs_an_encoder_and_a_file():
    with pytest.raises(ValueError, match=r"Conv2d has no encoder or backbone to load weights.pth into"):
        load_backbone(Model(nn.Conv2d(3, 3, 1), Inputs(), CLASSES), "weights.pth")
    with pytest.raises(ValueError, match=r"no weights at weights.pth"):
        load_backbone(build_segmenter(f"smp:PSPNet/{TINY}", CLASSES), "weights.pth")
