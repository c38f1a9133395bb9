import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from limbeck import Distiller, Match, conv1x1, conv_bn_relu
from limbeck.criteria import CWD, KD, MGD, ChannelTransform, Cosine
from tests.networks import compiled, convnet, images


def squares(student, teacher):
    return (student - teacher).square().sum()


def features(size=4, channels=(6, 9), batch=4):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, count, size, size, generator=generator).double() for count in channels]


def built(match, student, teacher, seed=0):
    torch.manual_seed(seed)
    with torch.no_grad():
        match.build(student.float(), teacher.float())
        match.double()
        match.set_pace(student, teacher)
    return match


def gradients(match, student, teacher):
    """By the student's feature, and by the match's own weights."""
    student = student.clone().requires_grad_()
    return torch.autograd.grad(match.loss(student, teacher), [student, *match.parameters()])


OWN = {
    "transform": lambda **options: Match("a", "a", ChannelTransform(), **options),
    "mean of squares": lambda **options: Match("a", "a", nn.MSELoss(), projector=conv1x1, **options),
    "sum of squares": lambda **options: Match("a", "a", squares, projector=conv1x1, **options),
    "generator": lambda **options: Match("a", "a", MGD(0.0), projector=conv1x1, **options),
    "cosine": lambda **options: Match("a", "a", Cosine(), projector=conv1x1, **options),
    "divergence": lambda **options: Match("a", "a", CWD(), projector=conv_bn_relu, **options),
}
every_kind = pytest.mark.parametrize("kind", OWN)


@pytest.mark.parametrize("weight", [1e-6, 1.0, 1e2])
@pytest.mark.parametrize("size", [4, 16, 64])
def test_transform_learns_by_sgd_whatever_the_weight_and_the_number_of_positions(weight, size):
    student, _ = features(size, (16, 24), batch=2)
    teacher = 0.25 * F.conv2d(student, torch.randn(24, 16, 1, 1, generator=torch.Generator().manual_seed(1)).double())
    match = built(Match("a", "a", ChannelTransform(), weight=weight), student, teacher)
    optimizer = torch.optim.SGD(match.parameters(), 0.1, momentum=0.9)
    first = match(student, teacher).item()
    for _ in range(60):
        optimizer.zero_grad()
        match.loss(student, teacher).backward()
        optimizer.step()
    assert match(student, teacher).item() < 0.3 * first


@every_kind
def test_own_weights_get_a_gradient_that_the_weight_does_not_change_and_the_student_that_of_the_weighted_value(kind):
    pair = features()
    light, heavy = (built(OWN[kind](weight=weight), *pair) for weight in (1e-6, 1e2))
    of_light, of_heavy = gradients(light, *pair), gradients(heavy, *pair)
    torch.testing.assert_close(of_light[1:], of_heavy[1:])
    student = pair[0].clone().requires_grad_()
    (1e2 * heavy(student, pair[1])).backward()
    torch.testing.assert_close(of_heavy[0], student.grad)
    torch.testing.assert_close(1e8 * of_light[0], student.grad)
    torch.testing.assert_close(heavy.loss(*pair), 1e2 * heavy(*pair))


@pytest.mark.parametrize("kind", ["transform", "mean of squares", "sum of squares", "generator", "cosine"])
def test_own_weights_get_a_gradient_that_the_number_of_positions_does_not_change(kind):
    small = features(1)
    large = [feature.expand(-1, -1, 8, 8).contiguous() for feature in small]
    if kind == "generator":  # whose convolutions see the border
        small = [feature.expand(-1, -1, 24, 24).contiguous() for feature in small]
        large = [feature.repeat(1, 1, 2, 2) for feature in small]
    found = [gradients(built(OWN[kind](), *pair), *pair)[1:] for pair in (small, large)]
    for here, there in zip(*found, strict=True):
        assert (here - there).norm() < 0.1 * here.norm()


def test_sum_and_mean_of_squares_give_own_weights_one_gradient():
    pair = features()
    mean, total = (gradients(built(OWN[f"{kind} of squares"](), *pair), *pair) for kind in ("mean", "sum"))
    torch.testing.assert_close(mean[1:], total[1:])
    assert not torch.allclose(mean[0], total[0])


def test_gradient_of_the_transform_is_that_of_the_relative_squared_error():
    pair = features()
    match = built(OWN["transform"](weight=3.0), *pair)
    with torch.no_grad():
        for bias in (match.criterion.hidden.bias, match.criterion.output.bias):
            bias.zero_()
    match.set_pace(*pair)
    relative = match(*pair) * len(pair[1]) / pair[1].square().sum()
    expected = torch.autograd.grad(relative, list(match.parameters()))
    torch.testing.assert_close(gradients(match, *pair)[1:], expected)


@every_kind
def test_coupled_match_has_the_gradient_of_the_weighted_value_everywhere(kind):
    pair = features()
    match = built(OWN[kind](weight=7.0, coupled=True), *pair)
    student = pair[0].clone().requires_grad_()
    expected = torch.autograd.grad(7 * match(student, pair[1]), [student, *match.parameters()])
    torch.testing.assert_close(gradients(match, *pair), expected)


def test_weight_of_zero_silences_the_match_for_the_student_alone():
    pair = features()
    match = built(OWN["transform"](weight=0), *pair)
    student, *own = gradients(match, *pair)
    assert not student.any()
    assert all(gradient.any() for gradient in own)
    assert match.loss(*pair) == 0


def test_pace_comes_back_from_the_state():
    pair = features()
    match = built(OWN["transform"](), *pair)
    other = built(OWN["transform"](), pair[0], 5 * pair[1])
    other.load_state_dict(match.state_dict(), strict=True)
    assert torch.equal(other.pace, match.pace)


def test_criterion_without_weights_of_its_own_has_no_pace():
    match = Match("", "", KD(), weight=2.0)
    Distiller(convnet(4), convnet(4, seed=1), [match], example=(images(),))
    assert match.pace is None


def test_own_weights_learn_while_a_schedule_keeps_the_weight_at_zero():
    match = Match("body", "body", nn.MSELoss(), projector=conv1x1, weight=lambda progress: progress)
    distiller = Distiller(convnet(4), convnet(8, seed=1), [match], example=(images(),))
    distiller.set_progress(0.0)
    loss = distiller(images()).loss
    distiller.set_progress(0.5)  # before the backward pass of what was weighed before
    loss.backward()
    assert match.projector.weight.grad.any()
    assert not any(parameter.grad.any() for parameter in distiller.student.parameters() if parameter.grad is not None)


def test_both_gradients_are_the_same_in_one_compiled_graph():
    matches = [Match("body", "body", ChannelTransform(), weight=0.1)]
    matches.append(Match("stem", "stem", nn.MSELoss(), projector=conv1x1, weight=30.0))
    distiller = Distiller(convnet(4), convnet(8, seed=1), matches, example=(images(),))
    clone = copy.deepcopy(distiller)
    results = []
    for model, call in ((distiller, distiller), (clone, compiled(clone))):
        out = call(images())
        (out.output.square().sum() + out.loss).backward()
        results.append([parameter.grad for parameter in model.parameters()])
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-6)
