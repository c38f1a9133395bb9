import copy
from functools import partial

import pytest
import timm
import torch
import torchvision
from torch import nn

from limbeck import Layer, prepare_teacher
from tests.networks import TokenNet, check_close, convnet, features_of, images, randomize_norms

BODY = Layer("body")
MODELS = {
    "timm resnet18": (lambda: timm.create_model("resnet18"), ["layer2", "layer4", ""]),
    "timm resnet50": (lambda: timm.create_model("resnet50"), ["layer1", "layer4"]),
    "timm mobilenetv2_100": (lambda: timm.create_model("mobilenetv2_100"), ["blocks.4.1.bn3", "bn2"]),
    "timm efficientnet_b0": (lambda: timm.create_model("efficientnet_b0"), ["blocks.2", "bn2"]),
    "timm tf_efficientnet_lite0": (lambda: timm.create_model("tf_efficientnet_lite0"), ["blocks.3", "bn2"]),
    "timm vit_tiny": (lambda: timm.create_model("vit_tiny_patch16_224", img_size=64), ["blocks.5", "norm"]),
    "torchvision resnet18": (torchvision.models.resnet18, ["layer1.0", "layer3"]),
    "torchvision mobilenet_v3_small": (torchvision.models.mobilenet_v3_small, ["features.8", "features.12"]),
}


@pytest.mark.parametrize(("make", "paths"), MODELS.values(), ids=MODELS)
def test_prepared_teacher_gives_the_features_of_the_plain_one(make, paths):
    torch.manual_seed(0)
    model = randomize_norms(make()).train()
    before, x = copy.deepcopy(model.state_dict()), images(size=64)
    teacher = prepare_teacher(model, paths, example=(images(size=64, seed=1),))
    assert not any(getattr(module, "running_var", None) is not None for module in teacher.model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())
    check_close(teacher(x), features_of(model, paths, x))


@pytest.mark.parametrize("switches", [{"fold_norm": False}, {"channels_last": False}, {"truncate": False}])
def test_every_switch_of_prepare_teacher_can_be_off(switches):
    model, x = randomize_norms(convnet(4)), images()
    teacher = prepare_teacher(model, ["act", "body"], example=(x,), **switches)
    check_close(teacher(x), features_of(model, ["act", "body"], x))
    assert isinstance(teacher.model.norm, nn.BatchNorm2d) == ("fold_norm" in switches)
    weight_is_last = teacher.model.stem.weight.is_contiguous(memory_format=torch.channels_last)
    assert weight_is_last == ("channels_last" not in switches)
    assert teacher(x)[BODY].is_contiguous() == ("channels_last" in switches)
    ran = []
    teacher.model.head.register_forward_pre_hook(lambda *_: ran.append("head"))
    teacher(x)
    assert ran == (["head"] if "truncate" in switches else [])


def test_teacher_in_bfloat16_gives_close_features_in_it_for_inputs_in_float32():
    model, x = randomize_norms(timm.create_model("resnet18")), images(size=64)
    features = prepare_teacher(model, ["layer3"], example=(x,), dtype=torch.bfloat16)(x)
    assert features[Layer("layer3")].dtype == torch.bfloat16
    check_close(features, features_of(model, ["layer3"], x), tolerance=0.05)


def test_teacher_in_bfloat16_keeps_its_precision_under_autocast():
    teacher = prepare_teacher(convnet(4), ["body"], example=(images(),), dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.float16):
        assert teacher(images())[BODY].dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [None, torch.float64])
def test_compiled_prepared_teacher_gives_equal_features(monkeypatch, dtype):
    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager", fullgraph=True))
    model, x = randomize_norms(convnet(4)), images()
    teacher = prepare_teacher(model, ["act", "body"], example=(x,), compile=True, dtype=dtype)
    check_close(teacher(x), features_of(model, ["act", "body"], x))


class ListNet(nn.Module):
    """A list of images to their scores, by way of a batch, as a detector takes it."""

    def __init__(self):
        super().__init__()
        self.backbone = randomize_norms(convnet(4))
        self.ran = []

    def forward(self, pictures):
        batch = torch.stack([picture.clamp(max=float(picture.max()) / 2) for picture in pictures])
        scores = self.backbone(batch)
        self.ran.append("head")
        return scores


def test_compiled_teacher_that_takes_a_list_compiles_the_part_that_takes_a_batch_and_stops_after_it(monkeypatch):
    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager", fullgraph=True))
    model, paths = ListNet(), ["backbone.act", "backbone.body"]
    pictures = list(images(3))
    expected = features_of(model, paths, pictures)
    teacher = prepare_teacher(model, paths, example=(pictures,), compile=True)
    teacher.model.ran.clear()
    for clone in (teacher, copy.deepcopy(teacher)):
        check_close(clone(pictures), expected)
        assert clone.model.ran == []


@pytest.mark.parametrize("compile", [False, True])
def test_deepcopied_teacher_runs_its_own_weights(monkeypatch, compile):
    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager", fullgraph=True))
    teacher = prepare_teacher(convnet(4), ["body"], example=(images(),), compile=compile)
    expected = teacher(images())[BODY]
    clone = copy.deepcopy(teacher)
    clone.model.body.weight.zero_()
    clone.model.body.bias.fill_(7)
    assert (clone(images())[BODY] == 7).all()
    assert torch.equal(teacher(images())[BODY], expected)


@pytest.mark.parametrize("layer", ["body", Layer("body"), iter(["body"])], ids=["path", "layer", "iterator"])
def test_layers_may_be_one_or_any_that_can_be_gone_through(layer):
    assert set(prepare_teacher(convnet(4), layer, example=images())(images())) == {Layer("body")}


def test_example_may_be_a_dict_of_keyword_arguments():
    teacher = prepare_teacher(TokenNet(4), ["block"], example={"x": images()})
    check_close(teacher(x=images()), features_of(TokenNet(4), ["block"], images()))


def test_layer_that_is_the_convolution_before_a_norm_keeps_its_value():
    model, x = randomize_norms(convnet(4)), images()
    teacher = prepare_teacher(model, ["stem", "body"], example=(x,))
    check_close(teacher(x), features_of(model, ["stem", "body"], x))


@pytest.mark.parametrize("truncate", [False, True])
def test_prepared_teacher_gives_the_input_of_an_activation_behind_a_folded_norm(truncate):
    model, x = randomize_norms(convnet(4)), images()
    before = Layer("act", input=True)
    ran = []
    teacher = prepare_teacher(model, [before], example=(x,), truncate=truncate)
    teacher.model.act.register_forward_hook(lambda *_: ran.append("act"))
    assert isinstance(teacher.model.norm, nn.Identity)
    torch.testing.assert_close(teacher(x)[before], model[:2](x))
    assert bool(ran) != truncate


def test_norm_whose_input_is_read_is_left():
    model, before = randomize_norms(convnet(4)), Layer("norm", input=True)
    teacher = prepare_teacher(model, [before], example=(images(),))
    torch.testing.assert_close(teacher(images())[before], model[:1](images()))
