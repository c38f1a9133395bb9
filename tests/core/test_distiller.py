import copy
import pickle
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel

from limbeck import Distiller, Layer, Match, conv1x1, pooled, prepare_teacher, tokens_to_map
from limbeck.criteria import CWD, DKD, FGD, FKD, KD, MGD, OFD, RKD, ChannelTransform, ReviewKD
from tests.networks import Block, TokenNet, compiled, convnet, images

MSE = nn.MSELoss


class Truthful:
    """A criterion that weighs every sample by the ground truth."""

    needs_truth = True

    def __call__(self, student, teacher, truth):
        return ((student - teacher) ** 2 * truth.view(-1, 1, 1, 1)).mean()


class Fused:
    """A criterion over two layers of each model."""

    def __call__(self, student, teacher):
        return sum(F.mse_loss(s, t) for s, t in zip(student, teacher, strict=True))


class Spy(ChannelTransform):
    """A channel transform that remembers the precision of what it saw."""

    seen = None

    def forward(self, student, teacher):
        self.seen = student.dtype
        return super().forward(student, teacher)


def distiller_of(*matches, student=None, teacher=None, **options):
    options = {"example": (images(),)} | options
    return Distiller(student or convnet(4), teacher or convnet(8, seed=1), matches, **options)


def last_and_first_loss(distiller, task_weight=1.0, steps=25):
    x, labels = images(8), torch.arange(8) % 5
    optimizer = torch.optim.Adam(distiller.parameters(), 1e-2)
    losses = []
    for _ in range(steps):
        out = distiller(x)
        loss = task_weight * F.cross_entropy(out.output, labels) + out.loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(out.loss.item())
    return losses[-1], losses[0]


# --- what it computes ---


def test_output_is_the_students_own_and_losses_are_the_weighted_criteria():
    student, teacher, x = convnet(4).eval(), convnet(4, seed=1).eval(), images(seed=3)
    expected = F.mse_loss(student[:4](x), teacher[:4](x)), KD()(student(x), teacher(x))
    distiller = distiller_of(
        Match("body", "body", MSE(), weight=3), Match("", "", KD(), weight=0.5), student=student, teacher=teacher
    )
    out = distiller.eval()(x)
    assert torch.equal(out.output, student(x))
    assert list(out.losses) == ["MSELoss:body", "KD:output"]
    torch.testing.assert_close(list(out.losses.values()), [3 * expected[0], 0.5 * expected[1]])
    torch.testing.assert_close(out.loss, 3 * expected[0] + 0.5 * expected[1])


def test_criterion_may_be_a_plain_function():
    distiller = distiller_of(Match("", "", F.smooth_l1_loss))
    assert list(distiller(images()).losses) == ["smooth_l1_loss:output"]


@pytest.mark.parametrize(
    ("student", "teacher", "match"),
    [
        (convnet(4), convnet(8, seed=1), lambda: Match("body", "body", ChannelTransform(), weight=0.1)),
        (convnet(4), convnet(8, seed=1), lambda: Match("body", "body", MSE(), projector=conv1x1)),
        (TokenNet(4), TokenNet(8, seed=1), lambda: Match("block", "block", ChannelTransform())),
        (TokenNet(4), TokenNet(8, seed=1), lambda: Match("block", "block", MSE(), projector=conv1x1)),
        (convnet(4), TokenNet(8), lambda: Match("body", Layer("block", tokens_to_map(1)), ChannelTransform())),
    ],
    ids=["maps", "maps through a projector", "tokens", "tokens through a projector", "map after tokens"],
)
def test_own_loop_learns_to_follow_the_teacher(student, teacher, match):
    last, first = last_and_first_loss(distiller_of(match(), student=student, teacher=teacher))
    assert last < 0.7 * first


def test_own_loop_learns_to_follow_the_teachers_logits():
    last, first = last_and_first_loss(distiller_of(Match("", "", KD())), task_weight=0.0)
    assert last < 0.5 * first


@pytest.mark.parametrize(("student_stride", "teacher_stride"), [(1, 2), (2, 1)], ids=["shrinks", "grows"])
def test_student_map_comes_to_the_grid_of_the_teacher_before_the_projector(student_stride, teacher_stride):
    student, teacher = convnet(4, stride=student_stride).eval(), convnet(8, stride=teacher_stride).eval()
    distiller = distiller_of(Match("body", "body", MSE(), projector=conv1x1), student=student, teacher=teacher).eval()
    feature, target = student[:4](images()), teacher[:4](images())
    how = {"mode": "area"} if student_stride == 1 else {"mode": "bilinear"}
    expected = F.mse_loss(distiller.matches[0].projector(F.interpolate(feature, target.shape[2:], **how)), target)
    torch.testing.assert_close(distiller(images()).loss, expected)


def test_criterion_over_two_layers_takes_a_tuple_of_each():
    student, teacher = convnet(4).eval(), convnet(4, seed=1).eval()
    distiller = distiller_of(Match(("stem", "body"), ("stem", "body"), Fused()), student=student, teacher=teacher)
    losses = distiller.eval()(images()).losses
    expected = sum(F.mse_loss(student[:n](images()), teacher[:n](images())) for n in (1, 4))
    torch.testing.assert_close(losses, {"Fused:stem+body": expected})


def test_criterion_that_needs_the_truth_gets_what_the_caller_passes():
    match = Match("body", "body", Truthful())
    distiller = distiller_of(match, student=convnet(4), teacher=convnet(4, seed=1), truth=torch.ones(2)).eval()
    one, two = (distiller(images(), truth=truth).loss for truth in (torch.tensor([1.0, 0]), torch.tensor([0, 1.0])))
    torch.testing.assert_close(one + two, distiller(images(), truth=torch.ones(2)).loss)
    assert not torch.isclose(one, two)


@pytest.mark.parametrize(
    ("layers", "criterion", "truth"),
    [
        ("body", FGD(1e-2, 1e-2, 1e-2, 1e-2), [torch.tensor([[0.1, 0.1, 0.5, 0.6]])] * 8),
        ("", DKD(), torch.arange(8) % 5),
        (("stem", "body"), ReviewKD(), None),
        ("body", FKD(), None),
        ("body", MGD(), None),
        ("body", OFD(), None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_criterion_with_weights_or_truth_learns_in_a_distiller_and_comes_back_from_its_state(layers, criterion, truth):
    def make():
        match = Match(layers, layers, copy.deepcopy(criterion))
        return distiller_of(match, teacher=convnet(4, seed=1), example=(images(8),), truth=truth)

    torch.manual_seed(0)
    distiller, x = make(), images(8)
    optimizer = torch.optim.Adam(distiller.parameters(), 1e-2)
    losses = []
    for _ in range(15):
        loss = distiller(x, truth=truth).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    other = make().eval()
    other.load_state_dict(distiller.state_dict(), strict=True)
    assert torch.equal(other(x, truth=truth).loss, distiller.eval()(x, truth=truth).loss)


def test_teacher_may_get_inputs_of_its_own():
    student, teacher = convnet(4).eval(), convnet(4, seed=1).eval()
    big = images(size=32)
    distiller = distiller_of(Match("body", "body", MSE()), student=student, teacher=teacher, teacher_inputs=(big,))
    feature, target = student[:4](images()), teacher[:4](big)
    expected = F.mse_loss(F.interpolate(feature, target.shape[2:], mode="bilinear"), target)
    torch.testing.assert_close(distiller.eval()(images(), teacher_inputs={"input": big}).loss, expected)


def test_features_are_what_the_matches_compare():
    student, teacher = convnet(4).eval(), convnet(4, seed=1).eval()
    big = images(size=32)
    distiller = distiller_of(Match("body", "body", MSE()), student=student, teacher=teacher, teacher_inputs=(big,))
    (feature,), (target,) = (each.values() for each in distiller.eval().features(images(), {"input": big}))
    assert torch.equal(feature, student[:4](images()))
    assert torch.equal(target, teacher[:4](big))


def test_models_are_called_by_keyword_as_the_student_is():
    distiller = distiller_of(
        Match("block", "block", MSE()), student=TokenNet(4), teacher=TokenNet(4, seed=1), example={"x": images()}
    )
    assert torch.equal(distiller(x=images()).loss, distiller(images()).loss)


# --- one module ---


def test_construction_leaves_modes_and_buffers_of_the_student_as_they_were():
    student = convnet(4).train()
    student.act.eval()
    modes = [module.training for module in student.modules()]
    before = copy.deepcopy(student.state_dict())
    distiller = distiller_of(Match("body", "body", MSE(), projector=conv1x1), student=student)
    assert [module.training for module in student.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in student.state_dict().items())
    assert distiller.matches[0].projector.training


class Observer(nn.Module):
    """Keeps the largest value of each channel, as those of quantisation-aware training: of none before it has run."""

    def __init__(self):
        super().__init__()
        self.register_buffer("largest", torch.empty(0))

    def forward(self, images):
        self.largest.resize_(images.shape[1]).copy_(images.detach().amax((0, 2, 3)))
        return images


def test_student_that_is_observed_for_its_quantisation_is_distilled():
    student = convnet(4)
    student.stem = nn.Sequential(student.stem, Observer())
    distiller = distiller_of(Match("body", "body", MSE(), projector=conv1x1), student=student)
    assert student.stem[1].largest.numel() == 0
    distiller(images()).loss.backward()
    assert student.stem[1].largest.numel() == 4
    assert student.stem[0].weight.grad.any()


def test_example_of_one_image_may_be_pooled_before_a_batch_norm():
    pool = Layer("body", pooled())
    match = Match(("stem", pool), ("stem", pool), ReviewKD())
    distiller_of(match, example=(images(1),))
    norms = [module for module in match.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 4
    assert all(norm.training and norm.num_batches_tracked == 0 for norm in norms)


def test_modes_of_the_student_are_restored_after_a_construction_that_failed():
    student = convnet(4).train()
    with pytest.raises(ValueError, match="conv1x1"):
        distiller_of(Match("body", "body", MSE()), student=student)
    assert all(module.training for module in student.modules())


def test_parameters_are_those_of_student_projectors_and_criteria():
    distiller = distiller_of(
        Match("stem", "stem", MSE(), projector=conv1x1), Match("body", "body", ChannelTransform(hidden=3))
    )
    names = [name for name, _ in distiller.named_parameters() if not name.startswith("student.")]
    criterion = [f"matches.1.criterion.{layer}.{kind}" for layer in ("hidden", "output") for kind in ("weight", "bias")]
    assert names == ["matches.0.projector.weight", "matches.0.projector.bias", *criterion]
    assert all(parameter.requires_grad for parameter in distiller.parameters())


def test_state_dict_holds_no_teacher_and_its_student_loads_into_a_plain_one():
    distiller = distiller_of(Match("body", "body", ChannelTransform()))
    last_and_first_loss(distiller, steps=2)
    state = distiller.state_dict()
    assert {name.split(".")[0] for name in state} == {"student", "matches"}
    plain = convnet(4, seed=5)
    plain.load_state_dict(distiller.student.state_dict(), strict=True)
    assert torch.equal(plain.eval()(images()), distiller.eval()(images()).output)
    other = distiller_of(Match("body", "body", ChannelTransform()), student=convnet(4, seed=5))
    other.load_state_dict(state, strict=True)
    assert torch.equal(other.eval()(images()).loss, distiller(images()).loss)


def test_teacher_stays_frozen_through_training():
    distiller = distiller_of(Match("body", "body", MSE(), projector=conv1x1)).train()
    before = copy.deepcopy(distiller.teacher.model.state_dict())
    last_and_first_loss(distiller, steps=2)
    assert not any(module.training for module in distiller.teacher.model.modules())
    assert all(torch.equal(before[name], value) for name, value in distiller.teacher.model.state_dict().items())
    assert all(parameter.grad is None for parameter in distiller.teacher.model.parameters())


def test_teacher_runs_whole_at_construction_and_stops_after_its_last_layer_from_then_on():
    teacher, ran = convnet(8), []
    teacher.head.register_forward_pre_hook(lambda *_: ran.append("head"))
    distiller = distiller_of(Match("body", "body", ChannelTransform()), teacher=teacher)
    assert ran == ["head"]
    distiller(images())
    assert ran == ["head"]


def test_to_moves_student_projector_and_teacher_together():
    distiller = distiller_of(Match("body", "body", MSE(), projector=conv1x1)).to(torch.float64)
    assert distiller(images().double()).loss.dtype == torch.float64


def test_deepcopied_distiller_gives_equal_losses_and_is_independent():
    distiller = distiller_of(Match("body", "body", ChannelTransform())).eval()
    clone = copy.deepcopy(distiller)
    expected = distiller(images()).loss
    assert torch.equal(clone(images()).loss, expected)
    nn.init.zeros_(clone.teacher.model.body.weight)
    nn.init.zeros_(clone.student.body.weight)
    assert not torch.equal(clone(images()).loss, expected)
    assert torch.equal(distiller(images()).loss, expected)


def test_average_of_the_student_runs_without_the_distiller():
    distiller = distiller_of(Match("body", "body", MSE(), projector=conv1x1)).eval()
    average = AveragedModel(distiller.student)
    assert torch.equal(average(images()), distiller(images()).output)
    assert {name.split(".")[0] for name in average.module.state_dict()} == {"stem", "norm", "body", "head"}


# --- precision and compilation ---


def test_criteria_get_float32_under_autocast_and_the_channel_transform_low_precision():
    seen = []

    def spy(student, teacher):
        seen[:] = [student.dtype, teacher.dtype, (student @ student.mT).dtype]
        return F.mse_loss(student, teacher)

    transform = Spy()
    distiller = distiller_of(Match("body", "body", transform), Match("", "", spy))
    with torch.autocast("cpu", torch.bfloat16):
        out = distiller(images())
    assert seen == [torch.float32] * 3
    assert transform.seen == torch.bfloat16
    assert out.output.dtype == torch.bfloat16
    assert {loss.dtype for loss in out.losses.values()} == {torch.float32}


def test_projector_runs_in_float32_under_autocast():
    distiller = distiller_of(Match("body", "body", Spy(), projector=conv1x1))
    with torch.autocast("cpu", torch.bfloat16):
        distiller(images())
    assert distiller.matches[0].criterion.seen == torch.float32


def test_teacher_held_in_bfloat16_works_with_every_criterion():
    teacher = prepare_teacher(convnet(8), ["body", ""], example=(images(),), dtype=torch.bfloat16)
    plain = distiller_of(Match("body", "body", ChannelTransform()), Match("", "", KD()), teacher=convnet(8)).eval()
    low = distiller_of(Match("body", "body", ChannelTransform()), Match("", "", KD()), teacher=teacher).eval()
    low.load_state_dict(plain.state_dict())
    torch.testing.assert_close(low(images()).losses, plain(images()).losses, rtol=0.03, atol=1e-3)


def results_of_a_step(distiller, call):
    distiller.zero_grad()
    out = call(images())
    (out.output.square().sum() + out.loss).backward()
    return out.losses, [parameter.grad.clone() for parameter in distiller.parameters()]


def test_compiled_distiller_is_one_graph_with_equal_losses_and_gradients():
    distiller = distiller_of(
        Match("body", "body", ChannelTransform()), Match("stem", "stem", MSE(), projector=conv1x1), Match("", "", KD())
    )
    expected = results_of_a_step(distiller, distiller)
    torch.testing.assert_close(results_of_a_step(distiller, compiled(distiller)), expected, rtol=1e-4, atol=1e-5)


def test_teacher_that_is_compiled_is_part_of_the_graph_of_a_compiled_distiller(monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    teacher = prepare_teacher(convnet(8), ["body"], example=(images(),), compile=True)
    plain = distiller_of(Match("body", "body", ChannelTransform()), teacher=convnet(8)).eval()
    distiller = distiller_of(Match("body", "body", ChannelTransform()), teacher=teacher).eval()
    distiller.load_state_dict(plain.state_dict())
    torch.testing.assert_close(compiled(distiller)(images()).losses, plain(images()).losses, rtol=1e-4, atol=1e-5)


def test_distiller_compiled_by_inductor_gives_equal_losses_and_gradients():
    student, teacher = convnet(4)[:1], convnet(8)[:1]
    distiller = distiller_of(Match("stem", "stem", ChannelTransform()), student=student, teacher=teacher)
    expected = results_of_a_step(distiller, distiller)
    result = results_of_a_step(distiller, compiled(distiller, "inductor"))
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)


def test_student_that_its_user_compiled_can_be_distilled():
    student = convnet(4).eval()
    distiller = distiller_of(Match("body", "body", MSE(), projector=conv1x1), student=compiled(student)).eval()
    out = distiller(images())
    out.loss.backward()
    target = distiller.teacher(images())[Layer("body")]
    torch.testing.assert_close(out.loss, F.mse_loss(distiller.matches[0].projector(student[:4](images())), target))
    assert student.stem.weight.grad.any()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_student_that_its_user_compiled_is_copied_and_averaged(copied):
    student = torch.compile(convnet(4).eval(), backend="eager")
    distiller = distiller_of(Match("body", "body", nn.MSELoss(), projector=conv1x1), student=student).eval()
    out = distiller(images())
    assert torch.equal(copied(distiller)(images()).loss, out.loss)
    assert torch.equal(AveragedModel(copied(distiller.student))(images()), out.output)


# --- refused at construction, in words ---


@pytest.mark.parametrize(
    ("match", "error", "message"),
    [
        (("bodi", "body", MSE()), ValueError, "Sequential has no layer 'bodi'; nearest: body"),
        (("body", "bodi", MSE()), ValueError, "Sequential has no layer 'bodi'; nearest: body"),
        (
            ("body", "body", MSE()),
            ValueError,
            r"student body gives \(2, 8, 4, 4\), teacher body gives \(2, 16, 4, 4\); .* pass projector=conv1x1",
        ),
        (("body", "flatten", MSE()), ValueError, r"read both as maps, for example Layer\(path, read=tokens_to_map"),
        (("", "", MSE(reduction="none")), ValueError, r"MSELoss:output gives \(2, 5\), not a scalar .* reduce it"),
        (("", "", lambda student, teacher: 1.0), ValueError, "gives float, not a scalar tensor"),
        (("", "", Truthful()), ValueError, r"Truthful:output needs the ground truth: pass truth=... here and in each"),
    ],
    ids=["student layer", "teacher layer", "channels", "dimensions", "not a scalar", "not a tensor", "no truth"],
)
def test_wrong_match_is_refused_with_the_remedy(match, error, message):
    with pytest.raises(error, match=message):
        distiller_of(Match(*match))


def test_projector_on_a_tuple_of_layers_is_refused():
    with pytest.raises(ValueError, match="a projector takes one layer of each model"):
        distiller_of(Match(("stem", "body"), ("stem", "body"), Fused(), projector=conv1x1))


def test_two_matches_that_were_given_one_name_are_refused():
    matches = [Match("stem", layer, MSE(), projector=conv1x1, name="stem") for layer in ("stem", "norm")]
    with pytest.raises(ValueError, match=r"given one name, so one loss would hide the other: \['stem', 'stem'\]"):
        distiller_of(*matches)


def test_a_match_without_its_list_is_refused():
    with pytest.raises(TypeError, match=r"pass a list: Distiller\(student, teacher, \[match\], ...\)"):
        Distiller(convnet(4), convnet(8), Match("body", "body", MSE()), example=torch.rand(2, 3, 4, 4))


@pytest.mark.parametrize(
    ("matches", "message"),
    [
        ({"a": 1}, r"matches is a dict; pass a list"),
        ("body", r"matches is a str; pass a list"),
        (None, r"matches is a NoneType; pass a list"),
        (["body"], r"'body' is no Match; pass \[Match\(layer, layer, criterion\), ...\]"),
        ([None], r"None is no Match; pass"),
    ],
    ids=str,
)
def test_what_is_no_match_is_refused(matches, message):
    with pytest.raises(TypeError, match=message):
        Distiller(convnet(4), convnet(8), matches, example=images())


def test_match_that_is_there_twice_is_refused():
    match = Match("body", "body", ChannelTransform())
    with pytest.raises(ValueError, match="one and the same Match, ChannelTransform:body, is there twice"):
        Distiller(convnet(4), convnet(8), [match, match], example=images())


def test_matches_may_be_anything_that_can_be_gone_through():
    matches = (Match(path, path, ChannelTransform()) for path in ("stem", "body"))
    distiller = Distiller(convnet(4), convnet(8), matches, example=images())
    assert list(distiller(images()).losses) == ["ChannelTransform:stem", "ChannelTransform:body"]


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_what_is_no_module_is_refused(role):
    models = {"student": convnet(4), "teacher": convnet(8)} | {role: convnet}
    with pytest.raises(TypeError, match=f"the {role} is <function convnet .*, and has to be an nn.Module"):
        Distiller(**models, matches=[Match("body", "body", ChannelTransform())], example=images())


def test_criterion_that_fails_is_named_beside_its_own_words():
    def three(student, teacher, labels):
        return student.mean()

    def fails(student, teacher):
        raise KeyError("classes")

    with pytest.raises(TypeError, match="missing 1 required positional argument: 'labels'") as error:
        distiller_of(Match("body", "body", three), teacher=convnet(4))
    assert "criterion of three:body" in error.value.__notes__[0]
    assert "needs_truth = True" in error.value.__notes__[0]
    with pytest.raises(KeyError) as error:
        distiller_of(Match("body", "body", fails), teacher=convnet(4))
    assert error.value.__notes__ == ["in the criterion of fails:body, which was called with the example's features"]


def test_projector_that_builds_no_module_is_refused():
    match = Match("body", "body", MSE(), projector=lambda student, teacher: lambda x: x)
    with pytest.raises(TypeError, match=r"projector <function .* gives a function, not an nn.Module"):
        distiller_of(match)


def test_no_match_is_refused():
    with pytest.raises(ValueError, match="no matches"):
        distiller_of()


def test_buffers_that_the_student_would_change_for_the_teacher_are_refused():
    student, teacher = convnet(4), convnet(4, seed=1)
    student.norm = teacher.norm = nn.BatchNorm2d(4, affine=False)
    with pytest.raises(ValueError, match="share weights or buffers"):
        distiller_of(Match("body", "body", MSE()), student=student, teacher=teacher)


@pytest.mark.parametrize("prepared", [False, True])
def test_shared_weights_are_refused(prepared):
    student, teacher = convnet(4), convnet(4, seed=1)
    if prepared:
        teacher = prepare_teacher(teacher, ["body"], example=(images(),))
    (teacher.model if prepared else teacher).head = student.head
    with pytest.raises(ValueError, match=r"share weights or buffers; pass copy.deepcopy\(teacher\)"):
        distiller_of(Match("body", "body", MSE()), student=student, teacher=teacher)
    assert student.head.weight.requires_grad


def test_layers_that_a_prepared_teacher_lacks_are_refused():
    teacher = prepare_teacher(convnet(8), ["body"], example=(images(),))
    with pytest.raises(ValueError, match=r"not prepared for \['stem'\]; name them in prepare_teacher\(..., layers\)"):
        distiller_of(Match("stem", "stem", MSE(), projector=conv1x1), teacher=teacher)


@pytest.mark.parametrize("twice", ["student", "teacher"])
def test_layer_that_runs_twice_is_refused_in_either_model(twice):
    models = {"student": Block(lambda block, x: block.a(x)), "teacher": Block(lambda block, x: block.a(x))}
    models[twice].steps = lambda block, x: block.a(block.a(x))
    with pytest.raises(RuntimeError, match="layer a of Block ran twice"):
        distiller_of(Match("a", "a", MSE()), **models)


@pytest.mark.parametrize("weight", ["atuo", None, torch.tensor(1.0)], ids=str)
def test_weight_that_is_no_number_nor_auto_nor_a_function_is_refused(weight):
    with pytest.raises(ValueError, match=f"weight is .*{str(weight)[:4]}.*; it is a number, 'auto', or a function"):
        Match("body", "body", nn.MSELoss(), weight=weight)


@pytest.mark.parametrize(
    ("layer", "criterion", "options", "message"),
    [
        ("body", FGD(), {}, r"FGD:body needs the ground truth \(the boxes of each image\): pass truth=... here and in"),
        ("body", FGD(), {"truth": torch.zeros(2, 4)}, "FGD needs the boxes of each of the 2 images .* not a Tensor"),
        ("", DKD(), {}, r"DKD:output needs the ground truth \(the class of each image\): pass truth=... here and in"),
        ("", DKD(), {"truth": torch.zeros(2, 5)}, "DKD needs the class of each of the 2 rows of logits as truth"),
        (
            "",
            KD(),
            {"teacher": convnet(4)[:-1]},
            r"KD compares logits .* student has \(2, 5\), teacher \(2, 32\); give",
        ),
        ("body", CWD(), {"teacher": convnet(8)}, r"teacher body gives \(2, 16, 4, 4\); .* pass projector=conv1x1"),
        ("body", MGD(), {"teacher": convnet(8)}, "MGD: student .* for other channels pass projector=conv1x1"),
        ("body", ReviewKD(), {}, r"two or more, not 1 and 1: Match\(\(layer, ...\), \(layer, ...\), ReviewKD\(\)\)"),
        ("body", RKD(), {}, "RKD relates .* needs 3 or more; this batch has 2"),
    ],
    ids=["no boxes", "bad boxes", "no classes", "bad classes", "KD", "CWD", "MGD", "ReviewKD", "RKD"],
)
def test_criterion_that_cannot_work_is_refused_at_construction_with_the_remedy(layer, criterion, options, message):
    with pytest.raises(ValueError, match=message):
        distiller_of(Match(layer, layer, criterion), **{"teacher": convnet(4, seed=1)} | options)
