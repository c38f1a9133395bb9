from functools import partial

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune

from limbeck import Layer, Teacher, prepare_teacher
from limbeck.teacher.compiled import Compiled
from tests.networks import Block, check_close, convnet, features_of, images, randomize_norms

BODY = Layer("body")


def with_norm(steps):
    """A Block whose steps may use its batch norm, "norm", too."""
    model = Block(steps)
    model.norm = nn.BatchNorm2d(3)
    return randomize_norms(model)


def hidden_by_large_values(block, x):
    y = block.a(x)
    return torch.cat([block.norm(y) + 0.1 * y, 300 * block.b(x)], 1)


LEFT = {
    "function takes the input too": lambda block, x: (lambda y: block.norm(y) + y)(block.a(x)),
    "change by three per cent beside large values": hidden_by_large_values,
    "activation in place": lambda block, x: block.norm(torch.relu_(block.a(x))),
    "small change in place": lambda block, x: block.norm(block.a(x).mul_(1.001)),
    "view of the input": lambda block, x: (lambda y: block.norm(y) + 1e-3 * y[:, :1].exp())(block.a(x)),
    "list of both": lambda block, x: (lambda y: torch.stack([block.norm(y), y]).sum(0))(block.a(x)),
}


@pytest.mark.parametrize("steps", LEFT.values(), ids=LEFT)
def test_norm_whose_input_is_used_otherwise_too_is_left(steps):
    model, x = with_norm(steps).double(), images(seed=1).double()
    teacher = prepare_teacher(model, [""], example=(images().double(),))
    assert isinstance(teacher.model.norm, nn.BatchNorm2d)
    torch.testing.assert_close(teacher(x)[Layer("")], model(x))


class VideoNet(nn.Module):
    """A map of a video by 3-d convolutions, and of its mean image by a 2-d one."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv3d, self.norm3d = nn.Conv3d(3, 4, 3, padding=1), nn.BatchNorm3d(4)
        self.conv2d, self.norm2d = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)

    def forward(self, video):
        return self.norm2d(self.conv2d(self.norm3d(self.conv3d(video)).mean(2)))


def test_convolutions_of_videos_are_folded_and_keep_their_memory_format():
    model = randomize_norms(VideoNet())
    video = torch.randn(2, 3, 5, 8, 8)
    teacher = prepare_teacher(model, ["norm2d"], example=(video,))
    assert teacher.model.conv3d.weight.is_contiguous()
    assert teacher.model.conv2d.weight.is_contiguous(memory_format=torch.channels_last)
    assert isinstance(teacher.model.norm3d, nn.Identity)
    torch.testing.assert_close(teacher(video)[Layer("norm2d")], model(video))


REPARAMETRIZED = {
    "weight norm": lambda module: torch.nn.utils.parametrizations.weight_norm(module),
    "old weight norm": lambda module: old_weight_norm(module),
    "spectral norm": lambda module: torch.nn.utils.parametrizations.spectral_norm(module),
    "old spectral norm": lambda module: torch.nn.utils.spectral_norm(module),
    "pruned": lambda module: prune.random_unstructured(module, "weight", 0.5),
}


def old_weight_norm(module):
    with pytest.warns(FutureWarning, match="deprecated"):
        return torch.nn.utils.weight_norm(module)


@pytest.mark.parametrize("reparametrize", REPARAMETRIZED.values(), ids=REPARAMETRIZED)
def test_convolution_whose_weight_is_computed_keeps_its_norm_and_a_warning_says_so(reparametrize):
    model, x = convnet(4), images()
    reparametrize(model.stem)
    model.train()
    model(x).sum().backward()  # the old ones now hold a weight that cannot be copied
    randomize_norms(model)
    with pytest.warns(UserWarning, match=r"1 batch norms as they are, such as norm: the weight of stem is computed"):
        teacher = prepare_teacher(model, ["body"], example=(x,))
    torch.testing.assert_close(teacher(x)[BODY], model[:4](x))
    assert model.stem.weight.shape == (4, 3, 3, 3)


def scale_again(block, x):
    return block.norm(block.a(x)) * block.norm.weight.data.abs().view(1, -1, 1, 1)


def test_norm_whose_weights_are_read_elsewhere_is_left_and_a_warning_says_so():
    model, x = with_norm(scale_again), images()
    with pytest.warns(UserWarning, match="such as norm: something else reads its weights"):
        teacher = prepare_teacher(model, [""], example=(x,))
    torch.testing.assert_close(teacher(x)[Layer("")], model(x))


def test_convolution_whose_weight_is_read_elsewhere_is_left_and_a_warning_says_so():
    model, x = with_norm(lambda block, x: block.norm(block.a(x)) * block.a.weight.sum()), images()
    with pytest.warns(UserWarning, match="the weight of a is computed from others, or something else reads it"):
        teacher = prepare_teacher(model, [""], example=(x,))
    torch.testing.assert_close(teacher(x)[Layer("")], model(x))


def test_convolution_with_a_hook_is_left_and_a_warning_says_so():
    model, x = with_norm(lambda block, x: block.norm(block.a(x))), images()
    model.norm.register_forward_hook(lambda module, inputs, output: 2 * output)
    with pytest.warns(UserWarning, match="hooks are registered on it or on a"):
        teacher = prepare_teacher(model, [""], example=(x,))
    torch.testing.assert_close(teacher(x)[Layer("")], model(x))


class LeakyNorm(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x) + 0.01 * x.relu()


def test_norm_that_does_something_else_is_left_and_a_warning_says_so():
    model, x = with_norm(lambda block, x: block.norm(block.a(x))), images()
    model.norm.__class__ = LeakyNorm
    with pytest.warns(UserWarning, match="norm: it gives something else than its statistics say"):
        teacher = prepare_teacher(model, [""], example=(x,))
    torch.testing.assert_close(teacher(x)[Layer("")], model(x))


def test_model_that_asks_its_norm_for_more_than_its_output_is_not_folded_and_a_warning_says_so():
    model = with_norm(lambda block, x: block.norm(block.a(x)) * block.norm.num_features)
    with pytest.warns(UserWarning, match=r"prepared with fold_norm=False: AttributeError: .*num_features"):
        teacher = prepare_teacher(model, [""], example=(images(),))
    assert teacher.channels_last
    torch.testing.assert_close(teacher(images())[Layer("")], model(images()))


def test_norm_that_is_run_from_a_list_is_not_folded_and_a_warning_says_so():
    model = with_norm(lambda block, x: block.unregistered[0](block.a(x)))
    model.unregistered = [model.norm]
    with pytest.warns(UserWarning, match=r"fold_norm=False: RuntimeError: a BatchNorm2d that was folded is run from"):
        teacher = prepare_teacher(model, [""], example=(images(),))
    torch.testing.assert_close(teacher(images())[Layer("")], model(images()))


def test_norm_with_two_paths_is_folded_at_both():
    model = with_norm(lambda block, x: block.again(block.a(x)))
    model.again = model.norm
    teacher = prepare_teacher(model, [""], example=(images(),))
    assert isinstance(teacher.model.norm, nn.Identity)
    torch.testing.assert_close(teacher(images())[Layer("")], model(images()))


def test_model_that_views_its_maps_keeps_its_memory_format_and_a_warning_says_so():
    model = with_norm(lambda block, x: block.norm(block.a(x)).view(len(x), -1))
    with pytest.warns(UserWarning, match=r"prepared with channels_last=False: RuntimeError: view size"):
        teacher = prepare_teacher(model, [""], example=(images(),))
    assert isinstance(teacher.model.norm, nn.Identity)
    assert not teacher.channels_last
    torch.testing.assert_close(teacher(images())[Layer("")], model(images()))


def test_model_in_bfloat16_is_prepared():
    model = randomize_norms(timm.create_model("resnet18")).bfloat16()
    x = images(size=64).bfloat16()
    teacher = prepare_teacher(model, ["layer3"], example=(x,))
    check_close(teacher(x), features_of(model, ["layer3"], x), tolerance=0.05)


def test_precision_that_a_feature_overflows_is_refused_with_the_remedy():
    model = Block(lambda block, x: 1e6 * block.a(x))
    with pytest.raises(RuntimeError, match=r"in torch.float16 the teacher's a\b|in torch.float16 the teacher's output"):
        prepare_teacher(model, [""], example=(images(),), dtype=torch.float16)
    prepare_teacher(model, [""], example=(images(),), dtype=torch.bfloat16)


def test_teacher_that_gives_no_finite_feature_is_refused():
    with pytest.raises(RuntimeError, match="the teacher's output is not finite for the example"):
        prepare_teacher(Block(lambda block, x: block.a(x) / 0), [""], example=(images(),))


def test_compiled_teacher_is_prepared_and_compiled_again(monkeypatch):
    torch.compiler.reset()
    model, x = randomize_norms(convnet(4)), images()
    teacher = prepare_teacher(torch.compile(model, backend="eager"), ["body"], example=(x,))
    assert isinstance(teacher.model.norm, nn.Identity)
    assert isinstance(teacher.run, Compiled)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager", fullgraph=True))
    torch.testing.assert_close(teacher(x)[BODY], model[:4](x))


def test_scripted_teacher_is_refused_and_a_scripted_part_is_left():
    with pytest.warns(FutureWarning, match="deprecated"):
        scripted = torch.jit.script(randomize_norms(convnet(4)))
    for make in (Teacher, partial(prepare_teacher, example=(images(),))):
        with pytest.raises(TypeError, match=r"runs outside Python, .* pass what was scripted"):
            make(scripted, [BODY])
    model = nn.Sequential(scripted, nn.Linear(5, 2)).eval()
    teacher = prepare_teacher(model, ["1"], example=(images(),))
    torch.testing.assert_close(teacher(images())[Layer("1")], model(images()))


def test_exported_teacher_gives_its_output():
    model, x = randomize_norms(convnet(4)), images()
    exported = torch.export.export(model, (x,)).module()
    teacher = prepare_teacher(exported, [""], example=(x,))
    torch.testing.assert_close(teacher(x)[Layer("")], model(x))


def test_teacher_exported_in_training_mode_is_refused():
    exported = torch.export.export(convnet(4).train(), (images(),)).module()
    with pytest.raises(RuntimeError, match=r"changes norm\..* was it exported in training mode"):
        prepare_teacher(exported, [""], example=(images(),))


def test_missing_layer_of_a_teacher_raises_before_anything_runs():
    with pytest.raises(ValueError, match="nearest: body"):
        prepare_teacher(convnet(4), ["bodi"], example=())


def test_teacher_that_is_random_in_eval_mode_is_refused():
    model = Block(lambda block, x: F.dropout(block.a(x)))
    with pytest.raises(RuntimeError, match=r"random in eval mode, .* pass fold_norm=False, channels_last=False"):
        prepare_teacher(model, [""], example=(images(),))
    prepare_teacher(model, [""], example=(images(),), fold_norm=False, channels_last=False)
