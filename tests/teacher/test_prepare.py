import copy
from functools import partial

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch._dynamo.backends.common import aot_autograd

from limbeck import Capture, Layer, Teacher, prepare_teacher
from tests.networks import Block, TokenNet, convnet, images, randomize_norms

BODY = Layer("body")


def features_of(model, paths, x):
    capture = Capture(model.eval(), map(Layer, paths))
    with torch.no_grad():
        features = {layer.path: feature for layer, feature in capture(x)[1].items()}
    capture.remove()
    return features


def check_close(features, expected, tolerance=1e-4):
    assert [layer.path for layer in features] == list(expected)
    for layer, feature in features.items():
        error = (feature - expected[layer.path]).abs().max() / expected[layer.path].abs().max()
        assert error < tolerance, f"{layer}: {error}"


def conv_count(graph):
    return sum(node.target is torch.ops.aten.convolution.default for node in graph.graph.nodes)


def record_graphs(graphs, graph, inputs):
    graphs.append(graph)
    return graph.forward


# --- frozen ---


def test_teacher_is_no_part_of_the_module_that_holds_it():
    teacher = Teacher(convnet(4), [BODY])
    holder = nn.ModuleList([teacher, nn.Linear(2, 2)])
    assert [name for name, _ in holder.named_parameters()] == ["1.weight", "1.bias"]
    assert list(holder.state_dict()) == ["1.weight", "1.bias"]
    assert not any(isinstance(module, nn.Conv2d) for module in holder.modules())


def test_teacher_stays_frozen_and_in_eval_mode_whatever_its_holder_does():
    teacher = Teacher(convnet(4).train(), [BODY])
    nn.ModuleList([teacher]).train().requires_grad_(True)
    assert not any(module.training for module in teacher.model.modules())
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())


def test_holder_moves_the_teacher_with_itself():
    holder = nn.ModuleList([Teacher(convnet(4), [BODY])]).to(torch.float64)
    assert holder[0](images().double())[BODY].dtype == torch.float64


@pytest.mark.parametrize("requires_grad", [False, True])
def test_features_need_no_gradient_and_serve_as_targets_of_mse_loss(requires_grad):
    feature = Teacher(convnet(4), [BODY])(images().requires_grad_(requires_grad))[BODY]
    student = torch.zeros_like(feature, requires_grad=True)
    F.mse_loss(student, feature).backward()
    assert not feature.requires_grad
    torch.testing.assert_close(student.grad, -2 * feature / feature.numel())


@pytest.mark.parametrize("prepared", [False, True])
def test_teacher_runs_under_the_autocast_of_its_device(prepared):
    model = convnet(4)
    teacher = prepare_teacher(model, ["body"], example=(images(),)) if prepared else Teacher(model, [BODY])
    with torch.autocast("cpu", torch.bfloat16):
        assert teacher(images())[BODY].dtype == torch.bfloat16
    assert teacher(images())[BODY].dtype == torch.float32


# --- truncated ---


def test_eager_teacher_never_runs_its_tail():
    model = convnet(4)
    ran = []
    model.pool.register_forward_pre_hook(lambda *_: ran.append("pool"))
    Teacher(model, [BODY])(images())
    assert ran == []
    Teacher(model, [BODY], truncate=False)(images())
    assert ran == ["pool"]


def test_compiled_teacher_drops_the_tail_of_the_graph():
    torch.compiler.reset()
    graphs = []
    model = randomize_norms(torchvision.models.resnet18())
    expected = features_of(model, ["layer3"], images(size=32))
    teacher = Teacher(model, [Layer("layer3")])
    backend = aot_autograd(fw_compiler=partial(record_graphs, graphs))
    features = torch.compile(teacher, backend=backend, fullgraph=True)(images(size=32))
    assert sum(isinstance(module, nn.Conv2d) for module in model.modules()) == 20
    assert [conv_count(graph) for graph in graphs] == [15]
    check_close(features, expected)


# --- prepared ---

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


def test_example_may_be_a_dict_of_keyword_arguments():
    teacher = prepare_teacher(TokenNet(4), ["block"], example={"x": images()})
    check_close(teacher(x=images()), features_of(TokenNet(4), ["block"], images()))


def test_norm_whose_input_is_used_by_functions_too_is_refused_with_the_remedy():
    def steps(block, x):
        y = block.a(x)
        return block.norm(y) + y

    model = Block(steps)
    model.norm = nn.BatchNorm2d(3)
    randomize_norms(model)
    with pytest.raises(RuntimeError, match=r"prepared teacher's output differs .* pass fold_norm=False"):
        prepare_teacher(model, [""], example=(images(),))
    teacher = prepare_teacher(model, [""], example=(images(),), fold_norm=False)
    check_close(teacher(images()), features_of(model, [""], images()))


def test_norm_after_an_activation_in_place_is_refused_with_the_remedy():
    model = Block(lambda block, x: block.norm(torch.relu_(block.a(x))))
    model.norm = nn.BatchNorm2d(3)
    with pytest.raises(RuntimeError, match="pass fold_norm=False"):
        prepare_teacher(randomize_norms(model), [""], example=(images(),))


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


def test_input_of_a_norm_that_would_be_folded_is_refused_with_the_remedy():
    model, before = randomize_norms(convnet(4)), Layer("norm", input=True)
    with pytest.raises(RuntimeError, match=r"prepared teacher's norm:input differs .* pass fold_norm=False"):
        prepare_teacher(model, [before], example=(images(),))
    teacher = prepare_teacher(model, [before], example=(images(),), fold_norm=False)
    torch.testing.assert_close(teacher(images())[before], model[:1](images()))


def test_missing_layer_of_a_teacher_raises_before_anything_runs():
    with pytest.raises(ValueError, match="nearest: body"):
        prepare_teacher(convnet(4), ["bodi"], example=())


def test_teacher_that_is_random_in_eval_mode_is_refused():
    model = Block(lambda block, x: F.dropout(block.a(x)))
    with pytest.raises(RuntimeError, match="unless the teacher's forward is random in eval mode"):
        prepare_teacher(model, [""], example=(images(),))
