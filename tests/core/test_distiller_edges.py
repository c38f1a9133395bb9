"""Where users bend a Distiller: another student, other modes, failures, copies; it works, or says why not."""

import copy
import gc
import io
import pickle
import subprocess
import sys
from collections import namedtuple

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from limbeck import Distiller, Layer, Match, conv1x1, first, prepare_teacher, unhook
from limbeck.core.distiller import Distilled
from limbeck.criteria import KD, ChannelTransform
from tests.networks import Block, compiled, convnet, images

MSE = nn.MSELoss


def distiller_of(*matches, student=None, teacher=None, **options):
    options = {"example": images()} | options
    matches = matches or (Match("body", "body", ChannelTransform()),)
    return Distiller(student or convnet(4), teacher or convnet(8, seed=1), matches, **options)


def hooks_of(model):
    return [hook for module in model.modules() for hook in (*module._forward_hooks, *module._forward_pre_hooks)]


def test_a_criterion_that_changes_a_feature_in_place_is_refused():
    for spoil in (
        lambda student, teacher: (student - teacher.sub_(teacher.mean())).square().mean(),
        lambda student, teacher: (student.flatten(1).clamp_(0) - teacher.flatten(1)).square().mean(),
    ):
        with pytest.raises(ValueError, match="changes a feature in place"):
            distiller_of(Match("body", "body", spoil), teacher=convnet(4, seed=1))


# --- a criterion without gradient ---


def agreement(student, teacher):
    """Of the classes; the two networks of these tests agree on one image of the two."""
    return (student.argmax(1) == torch.tensor([student[0].argmax(), -1])).float().mean()


def nothing_here(student, teacher):
    return torch.zeros(())


class OwnAlone(nn.Linear):  # a criterion that trains its own weights, and not the student
    def forward(self, student, teacher):
        return super().forward(student.detach()).square().mean()


@pytest.mark.parametrize(
    "criterion",
    [lambda student, teacher: (student.detach() - teacher).square().mean(), agreement, OwnAlone(5, 5)],
    ids=["detached", "argmax", "own weights alone"],
)
@pytest.mark.parametrize("weight", [1.0, "auto", lambda progress: progress])
def test_criterion_that_gives_the_student_no_gradient_is_refused_at_construction(criterion, weight):
    with pytest.raises(ValueError, match=r"of .*:output gives no gradient to the student's feature, .* detach\(\)"):
        distiller_of(Match("", "", criterion, weight=weight))


def test_criterion_without_gradient_is_taken_where_it_is_only_looked_at():
    distiller = distiller_of(Match("", "", agreement, weight=0), Match("body", "body", ChannelTransform()))
    assert distiller.matches[0](torch.eye(5)[:2], torch.eye(5)[:2]) == 0.5
    distiller(images()).loss.backward()


def test_criterion_that_has_nothing_to_compare_in_the_example_is_warned_of_alone():
    with pytest.warns(UserWarning, match="for the example, where its value is 0, the criterion of nothing_here:output"):
        distiller_of(Match("", "", nothing_here))


def test_criterion_of_a_student_that_equals_its_teacher_teaches_all_the_same():
    distiller_of(Match("body", "body", MSE()), student=convnet(4), teacher=convnet(4))
    distiller_of(Match(("stem", "body"), ("stem", "body"), lambda s, t: (s[1] - t[1]).norm()), teacher=convnet(4))


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_a_model_that_gives_nan_for_the_example_is_refused_by_its_layer(role):
    broken = convnet(8)
    nn.init.constant_(broken.body.bias, torch.nan)
    with pytest.raises(ValueError, match=rf"the {role}'s feature at body is nan for the example: its weights are"):
        distiller_of(**{role: broken})


# --- a feature without gradient ---


def frozen_start(student):
    student.stem.requires_grad_(False)
    return student, Layer("stem")


def detached(student):
    return student, Layer("body", read=lambda output: output.detach())


def reentrant(student):
    block = Block(lambda block, x: checkpoint(lambda x: block.b(block.a(x)), x.requires_grad_(), use_reentrant=True))
    return block, Layer("a")


@pytest.mark.parametrize("spoil", [frozen_start, detached, reentrant])
def test_feature_without_gradient_raises_in_the_first_training_forward(spoil):
    student, layer = spoil(convnet(4))
    distiller = distiller_of(
        Match(layer, layer.path if layer.path != "a" else "stem", MSE(), projector=conv1x1), student=student
    )
    with torch.no_grad():
        distiller(images())
    distiller.eval()(images())
    with pytest.raises(RuntimeError, match=rf"feature at {layer.path} has no gradient, .* use_reentrant=False"):
        distiller.train()(images())


# --- another student ---


def test_student_that_is_replaced_is_the_one_that_runs():
    distiller = distiller_of().eval()
    before, other = distiller.student, convnet(4, seed=5).eval()
    distiller.student = other
    out = distiller(images())
    assert torch.equal(out.output, other(images()))
    target = distiller.teacher(images())[Layer("body")]
    torch.testing.assert_close(out.loss, distiller.matches[0](other[:4](images()), target))
    assert hooks_of(before) == []


def test_student_may_be_compiled_afterwards():
    distiller = distiller_of().eval()
    expected = distiller(images())
    distiller.student = compiled(distiller.student)
    for _ in range(2):
        torch.testing.assert_close(distiller(images()).loss, expected.loss, rtol=1e-4, atol=1e-5)


def test_student_without_the_layers_is_refused_and_the_one_before_stays():
    distiller = distiller_of().eval()
    expected = distiller(images()).loss
    with pytest.raises(ValueError, match="has no layer 'body'"):
        distiller.student = nn.Sequential(convnet(4))
    assert torch.equal(distiller(images()).loss, expected)


def test_matched_norm_that_becomes_a_synchronised_one_raises_with_the_remedy():
    distiller = nn.SyncBatchNorm.convert_sync_batchnorm(distiller_of(Match("norm", "norm", MSE(), projector=conv1x1)))
    with pytest.raises(RuntimeError, match=r"norm of .* was a BatchNorm2d .* now, a SyncBatchNorm; replace"):
        distiller(images())


# --- the clean student ---


def test_student_is_pickled_and_scripted_and_copied_once_it_is_unhooked():
    distiller = distiller_of(Match("body", Layer("body", read=lambda output: output), ChannelTransform()))
    student = unhook(distiller.student)
    assert student is distiller.student
    assert hooks_of(student) == []
    stream = io.BytesIO()
    torch.save(student, stream)
    stream.seek(0)
    again = torch.load(stream, weights_only=False).eval()
    assert torch.equal(again(images()), student.eval()(images()))
    with pytest.raises(RuntimeError, match=r"layer body of Sequential is not hooked any more"):
        distiller(images())


def test_distiller_from_a_pickle_measures_without_compilation_in_another_process(tmp_path):
    torch.save(distiller_of(Match("body", "body", MSE(), weight="auto", projector=conv1x1)), tmp_path / "distiller.pt")
    code = (
        "import sys, torch; distiller = torch.load(sys.argv[1], weights_only=False)\n"
        "compiled = torch.compile(distiller, backend='eager')\n"
        "for _ in range(12): out = compiled(torch.randn(2, 3, 16, 16)); (out.output.sum() + out.loss).backward()\n"
        "assert distiller.matches[0].weight > 0"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "distiller.pt")], check=True)


@pytest.mark.parametrize(
    "make", [lambda d: d, copy.deepcopy, lambda d: pickle.loads(pickle.dumps(d))], ids=["itself", "copy", "pickle"]
)
def test_hooks_are_gone_with_the_distiller_that_read_by_them(make):
    made = distiller_of()
    distiller = make(made)
    models = distiller.student, distiller.teacher.model
    distiller(images())
    assert [len(hooks_of(model)) for model in models] == [1, 1]
    del distiller, made
    gc.collect()
    assert [len(hooks_of(model)) for model in models] == [0, 0]


def test_hooks_of_a_student_that_was_replaced_are_gone_with_the_distiller_too():
    student = convnet(4)
    distiller = distiller_of()
    distiller.student = student
    assert len(hooks_of(student)) == 1
    del distiller
    gc.collect()
    assert hooks_of(student) == []


def test_teacher_that_is_kept_alone_and_a_compiled_distiller_go_on():
    distiller = distiller_of()
    teacher, wrapped = distiller.teacher, compiled(distiller, backend="eager")
    expected = distiller.eval()(images()).loss
    del distiller
    gc.collect()
    assert torch.equal(wrapped(images()).loss, expected)
    del wrapped
    gc.collect()
    assert list(teacher(images())) == [Layer("body")]


def test_only_our_hooks_are_taken_off_also_from_a_deep_copy():
    student, seen = convnet(4), []
    student.stem.register_forward_hook(lambda *_: seen.append("stem"))
    distiller = distiller_of(Match(Layer("act", input=True), "norm", MSE(), projector=conv1x1), student=student)
    average = unhook(copy.deepcopy(distiller.student))
    assert len(hooks_of(average)) == 1
    distiller(images())
    assert len(hooks_of(student)) == 2
    seen.clear()
    average(images())
    assert seen == ["stem"]


FAILURES = {
    "student layer": ({}, [Match("stem", "stem", MSE(), projector=conv1x1), Match("bodi", "body", MSE())]),
    "teacher layer": ({}, [Match("stem", "stem", MSE(), projector=conv1x1), Match("body", "bodi", MSE())]),
    "shapes": ({}, [Match("stem", "stem", MSE(), projector=conv1x1), Match("body", "body", MSE())]),
    "inputs": ({"example": torch.zeros(1, 1, 16, 16)}, [Match("", "", KD())]),
    "no truth": ({}, [Match("", "", type("Needy", (), {"needs_truth": True, "__call__": lambda *_: 0})())]),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_construction_that_fails_leaves_both_models_as_they_were(failure):
    options, matches = FAILURES[failure]
    student, teacher = convnet(4), convnet(8, seed=1)
    teacher.act.eval()
    teacher.stem.weight.requires_grad_(False)
    modes = [module.training for model in (student, teacher) for module in model.modules()]
    with pytest.raises((ValueError, RuntimeError)):
        distiller_of(*copy.deepcopy(matches), student=student, teacher=teacher, **options)
    assert [module.training for model in (student, teacher) for module in model.modules()] == modes
    assert hooks_of(student) == hooks_of(teacher) == []
    assert [name for name, weight in teacher.named_parameters() if not weight.requires_grad] == ["stem.weight"]


def test_prepared_teacher_is_still_one_after_a_construction_that_failed():
    teacher = prepare_teacher(convnet(8), ["body"], example=images())
    with pytest.raises(ValueError, match="conv1x1"):
        distiller_of(Match("body", "body", MSE()), teacher=teacher)
    assert distiller_of(teacher=teacher)(images()).loss > 0


# --- modes ---

Outputs = namedtuple("Outputs", ["logits", "aux"])


class GoogLike(nn.Module):
    """Gives a named tuple in training and a tensor otherwise, as GoogLeNet and Inception do."""

    def __init__(self, width, seed=0):
        super().__init__()
        self.net = convnet(width, seed=seed)

    def forward(self, x):
        logits = self.net(x)
        return Outputs(logits, logits) if self.training else logits


def test_example_may_run_in_training_mode_and_leaves_modes_and_buffers():
    student = GoogLike(4)
    student.net.norm.eval()
    modes, before = [m.training for m in student.modules()], copy.deepcopy(student.state_dict())
    match = Match(Layer("", read=lambda output: output.logits), "", KD())
    distiller = distiller_of(match, student=student, example_mode="train")
    assert [m.training for m in student.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    distiller.train()
    out = distiller(images())
    torch.testing.assert_close(out.loss, KD()(out.output.logits, distiller.teacher.model(images())))


def test_example_runs_in_eval_mode_by_default_and_no_other_mode_is_known():
    with pytest.raises(AttributeError, match="logits"):
        distiller_of(Match(Layer("", read=lambda output: output.logits), "", KD()), student=GoogLike(4))
    with pytest.raises(ValueError, match="example_mode is 'training'; it is 'eval' or 'train'"):
        distiller_of(example_mode="training")


@pytest.mark.parametrize("prepared", [False, True])
def test_distiller_validates_under_inference_mode_and_trains_afterwards(prepared):
    teacher = convnet(8, seed=1)
    if prepared:
        teacher = prepare_teacher(teacher, ["body", ""], example=images())
    matches = (
        Match("body", "body", ChannelTransform(), weight="auto"),
        Match("body", "body", MSE(), projector=conv1x1),
        Match("", "", KD(), weight=lambda progress: 1.0),
    )
    distiller = distiller_of(*matches, teacher=teacher).eval()
    with torch.no_grad():
        expected = distiller(images())
    with torch.inference_mode():
        out = distiller(images())
    torch.testing.assert_close(out.losses, expected.losses)
    distiller.train().set_progress(0.5)
    distiller(images()).loss.backward()
    assert distiller.student.stem.weight.grad.any()


def test_distiller_that_is_made_under_inference_mode_trains():
    with torch.inference_mode():
        distiller = Distiller(convnet_out, convnet(8), [Match("body", "body", ChannelTransform())], example=images())
    distiller(images()).loss.backward()
    assert all(parameter.grad.any() for parameter in distiller.matches.parameters())


convnet_out = convnet(4)  # made outside


def test_progress_may_be_set_between_forward_and_backward():
    distiller = distiller_of(Match("body", "body", MSE(), projector=conv1x1, weight=lambda progress: 1 + progress))
    distiller.set_progress(0.0)
    loss = distiller(images()).loss
    (expected,) = torch.autograd.grad(loss, distiller.student.stem.weight, retain_graph=True)
    distiller.set_progress(1.0)
    (gradient,) = torch.autograd.grad(loss, distiller.student.stem.weight)
    assert torch.equal(gradient, expected)


# --- refused in words ---


class Truthful(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = convnet(4)

    def forward(self, images, truth=None):
        return self.net(images)


def test_student_with_an_argument_that_the_distiller_keeps_is_refused():
    with pytest.raises(ValueError, match=r"arguments of its own called \['truth'\], which the Distiller keeps"):
        distiller_of(Match("", "", KD()), student=Truthful())


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_model_on_the_meta_device_is_refused(role):
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(3, 4, 3))
    with pytest.raises(ValueError, match=rf"the {role} has weights on the meta device, .* {role}.to_empty\(device"):
        distiller_of(**{role: model})


def test_data_parallel_is_refused():
    with pytest.raises(RuntimeError, match=r"DataParallel copies modules .* use DistributedDataParallel"):
        distiller_of()._replicate_for_data_parallel()  # what nn.DataParallel calls of every module, on GPUs


def test_output_may_be_read_by_position_in_both_models():
    student, teacher = (Block(lambda block, x: (block.b(block.a(x)), x)) for _ in range(2))
    teacher.a.bias.data.fill_(3)
    out = distiller_of(Match(Layer("", first), Layer("", first), MSE()), student=student, teacher=teacher)(images())
    assert out.loss > 0


def test_weights_that_are_emptied_and_loaded_find_the_teacher_as_it_was():
    distiller = distiller_of(Match("", "", MSE())).eval()
    state, expected = copy.deepcopy(distiller.state_dict()), distiller(images()).loss
    nn.Sequential(distiller).to_empty(device="cpu")
    distiller.load_state_dict(state)
    assert torch.equal(distiller(images()).loss, expected)


# --- what a layer returns ---


class Refilled(nn.Module):
    """A body that returns a dictionary, in which the model then puts something else."""

    def __init__(self):
        super().__init__()
        self.body = convnet(4).body
        self.stem = convnet(4).stem
        self.maps = Maps()

    def forward(self, x):
        maps = self.maps(self.body(self.stem(x)))
        maps["last"] = 10 * maps["last"]
        return maps["last"].mean((2, 3))


class Maps(nn.Module):
    def forward(self, x):
        return {"last": x}


def test_a_dictionary_is_read_as_the_layer_returned_it():
    teacher = Refilled()
    layer = Layer("maps", read=lambda maps: maps["last"])
    distiller = distiller_of(Match(layer, layer, MSE()), student=copy.deepcopy(teacher), teacher=teacher)
    assert distiller(images()).loss == 0


class Tokens(nn.Module):
    def __init__(self, batch_first):
        super().__init__()
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=batch_first)
        self.batch_first = batch_first

    def forward(self, tokens):
        return self.block(tokens if self.batch_first else tokens.transpose(0, 1)).mean(int(self.batch_first))


def test_tokens_with_the_batch_second_are_refused_with_how_to_read_them():
    tokens = torch.randn(4, 10, 8)
    with pytest.raises(ValueError, match=r"gives \(10, 4, 8\) for 4 images, so with the batch second"):
        distiller_of(Match("block", "block", MSE()), student=Tokens(False), teacher=Tokens(False), example=tokens)
    turned = Layer("block", read=lambda output: output.transpose(0, 1))
    distiller_of(Match("block", turned, MSE()), student=Tokens(True), teacher=Tokens(False), example=tokens)


def test_a_teacher_may_get_a_bare_tensor_of_its_own():
    distiller = distiller_of(teacher_inputs=images().flip(0))
    assert distiller(images(), teacher_inputs=images().flip(0)).loss > 0


# --- gradients ---


def test_gradients_of_gradients_are_refused_unless_the_match_is_coupled():
    torch.manual_seed(0)
    student = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4))
    teacher, x = nn.Linear(3, 4), torch.randn(6, 3, requires_grad=True)
    match, coupled = (Match("", "", MSE(), projector=conv1x1, weight=3.0, coupled=coupled) for coupled in (False, True))
    with pytest.raises(RuntimeError, match="pass coupled=True"):
        torch.autograd.grad(Distiller(student, teacher, [match], example=x)(x).loss, x, create_graph=True)
    distiller = Distiller(unhook(student), teacher, [coupled], example=x)
    plain = 3 * nn.functional.mse_loss(coupled.projector(student(x)), teacher(x.detach()))
    penalties = []
    for loss in (distiller(x).loss, plain):
        (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
        penalties.append(torch.autograd.grad(gradient.square().sum(), student[0].weight)[0])
    torch.testing.assert_close(*penalties)


def test_an_automatic_weight_is_found_in_double_precision():
    distiller = distiller_of(
        Match("body", "body", ChannelTransform(), weight="auto"),
        student=convnet(4).double(),
        teacher=convnet(8, seed=1).double(),
        example=images().double(),
    )
    for _ in range(3):
        out = distiller(images().double())
        (out.output.square().mean() + out.loss).backward()
    assert distiller.matches[0].weight > 0


@pytest.mark.parametrize("weight", [0.0, lambda progress: 1.0 if progress > 0.5 else 0.0])
def test_a_frozen_student_is_no_mistake_while_the_weight_is_zero(weight):
    student = convnet(4)
    distiller = distiller_of(Match("body", "body", ChannelTransform(), weight=weight), student=student)
    student[:4].requires_grad_(False)
    distiller.set_progress(0.0)
    assert distiller(images()).loss == 0
    if callable(weight):
        distiller.set_progress(1.0)
        with pytest.raises(RuntimeError, match="has no gradient"):
            distiller(images())


def test_another_teacher_needs_another_distiller():
    distiller = distiller_of()
    with pytest.raises(AttributeError, match="make another Distiller for another teacher"):
        distiller.teacher = convnet(8)


def test_norms_that_do_not_know_their_channels_yet_are_built_by_the_example():
    student = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.ReLU())
    distiller = distiller_of(Match("2", "body", ChannelTransform()), student=student)
    assert distiller(images()).loss > 0


def test_the_loss_of_no_matches_is_0():
    assert torch.equal(Distilled(None, {}).loss, torch.tensor(0.0))
