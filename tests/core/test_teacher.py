import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch._dynamo.backends.common import aot_autograd

from limbeck import Layer, Teacher, prepare_teacher
from tests.networks import check_close, compiled, convnet, features_of, images, randomize_norms

BODY = Layer("body")


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


@pytest.mark.parametrize("compile", [False, True])
def test_forward_is_in_eval_mode_when_others_call_train(compile):
    model, x = randomize_norms(convnet(4)), images()
    model.body_act = nn.Dropout()
    plain = Teacher(model, [Layer("pool")])
    before, expected = copy.deepcopy(model.state_dict()), plain(x)
    teacher = compiled(plain) if compile else plain
    teacher(x)
    model.train()
    assert torch.equal(teacher(x)[Layer("pool")], expected[Layer("pool")])
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_dropout_that_the_student_shares_drops_in_the_student_alone():
    shared = nn.Dropout(0.5)
    teacher, student = Teacher(nn.Sequential(shared), [Layer("")]), nn.Sequential(shared)
    student.train()
    x = torch.ones(2, 3)
    assert torch.equal(teacher(x)[Layer("")], x)
    assert shared.training


def test_forward_that_raises_leaves_modes_as_they_were():
    model = convnet(4)
    teacher = Teacher(model, [BODY])
    model.train()
    with pytest.raises(RuntimeError, match="expected input"):
        teacher(torch.zeros(1, 1, 16, 16))
    assert all(module.training for module in model.modules())


def test_holder_that_is_emptied_before_weights_are_loaded_leaves_the_teacher_its_own():
    teacher = Teacher(convnet(4), [BODY])
    expected = teacher(images())[BODY]
    nn.ModuleList([teacher, nn.Linear(2, 2)]).to_empty(device="cpu")
    assert torch.equal(teacher(images())[BODY], expected)


def test_teacher_on_the_meta_device_cannot_lose_its_weights_unseen():
    with torch.device("meta"):
        teacher = Teacher(nn.Sequential(nn.Conv2d(3, 4, 3)), [Layer("0")])
        assert teacher(torch.empty(1, 3, 8, 8))[Layer("0")].shape == (1, 4, 6, 6)
    with pytest.raises(RuntimeError, match=r"teacher is on the meta device, .* teacher.load_state_dict"):
        nn.ModuleList([teacher]).to_empty(device="cpu")
    with pytest.raises(ValueError, match="load its weights before"):
        prepare_teacher(teacher.model, ["0"], example=(images(),))


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
