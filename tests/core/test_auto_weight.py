import copy
import logging
from statistics import geometric_mean

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from limbeck import Capture, Distiller, Layer, Match, conv1x1, tokens_to_map
from limbeck.core.auto_weight import BATCHES, RATIO
from limbeck.criteria import ChannelTransform
from tests.networks import TokenNet, compiled, convnet, images

LABELS = torch.tensor([0, 1, 2, 3])


def distiller_of(*matches, norm=False):
    student, teacher = convnet(4, norm=norm), convnet(4, norm=norm, seed=1)
    return Distiller(student, teacher, matches, example=(images(),))


def auto(criterion=None, student="body", teacher="body"):
    return Match(student, teacher, criterion or nn.MSELoss(), weight="auto")


def train(distiller, steps, first=0, factor=1.0, optimizer=None, call=None):
    """Train with a batch that depends on the step alone; without an optimizer the weights stay as they are."""
    for step in range(first, first + steps):
        distiller.zero_grad()
        out = (distiller if call is None else call)(images(4, seed=step))
        (factor * (F.cross_entropy(out.output, LABELS) + out.loss)).backward()
        if optimizer is not None:
            optimizer.step()


def quotient(task, criterion, feature):
    """Of the norm of the task loss's gradient on the feature and that of the criterion's."""
    of_task, of_criterion = (torch.autograd.grad(loss, feature, retain_graph=True)[0] for loss in (task, criterion))
    return (of_task.norm() / of_criterion.norm()).item()


def weight_by_hand(student, teacher, criterion, layers):
    """``RATIO`` times the geometric mean of the quotients of the gradient norms on the student's feature."""
    quotients = []
    for step in range(BATCHES):
        x = images(4, seed=step)
        feature, target = student[:layers](x), teacher[:layers](x)
        task = F.cross_entropy(student[layers:](feature), LABELS)
        quotients.append(quotient(task, criterion(feature, target), feature))
    return RATIO * geometric_mean(quotients)


@pytest.mark.parametrize("make", [nn.MSELoss, ChannelTransform])
def test_settled_weight_is_the_ratio_times_the_geometric_mean_of_the_gradient_norms(make):
    match = auto(make())
    distiller = distiller_of(match)
    train(distiller, BATCHES + 1)
    expected = weight_by_hand(distiller.student, distiller.teacher.model, match.criterion, layers=4)
    assert match.weight == pytest.approx(expected, rel=1e-4)


def test_gradient_of_the_task_is_taken_where_the_layer_gives_its_output_and_not_where_it_is_read():
    layer = Layer("block", tokens_to_map(1))  # what it reads is not on the way to the task's loss
    match = Match(layer, layer, nn.MSELoss(), weight="auto")
    student, teacher = TokenNet(4), TokenNet(4, seed=1)
    train(Distiller(student, teacher, [match], example=(images(),)), BATCHES + 1)
    quotients = []
    for step in range(BATCHES):
        tokens, target = (
            Capture(model, [Layer("block")])(images(4, seed=step))[1][Layer("block")] for model in (student, teacher)
        )
        task = F.cross_entropy(student.head(tokens.mean(1)), LABELS)
        quotients.append(quotient(task, F.mse_loss(tokens[:, 1:], target[:, 1:]), tokens))
    assert match.weight == pytest.approx(RATIO * geometric_mean(quotients), rel=1e-4)


def test_weight_at_the_input_of_an_activation_is_that_at_the_output_of_the_layer_before():
    weights = []
    for layer in (Layer("body"), Layer("body_act", input=True)):
        match = auto(student=layer, teacher=layer)
        train(distiller_of(match), BATCHES + 1)
        weights.append(match.weight)
    assert weights[0] == weights[1]


def test_settled_weight_is_applied_from_then_on():
    match = auto()
    distiller = distiller_of(match)
    train(distiller, BATCHES + 1)
    x = images(seed=99)
    value = F.mse_loss(distiller.student[:4](x), distiller.teacher.model[:4](x))
    torch.testing.assert_close(distiller(x).loss, match.weight * value)
    torch.testing.assert_close(distiller.eval()(x).loss, match.weight * value)


@pytest.mark.parametrize("factor", [2.0**16, 0.125])
def test_factor_on_the_whole_loss_cancels(factor):
    weights = []
    for scale in (1.0, factor):
        match = auto()
        train(distiller_of(match), BATCHES + 1, factor=scale)
        weights.append(match.weight)
    assert weights[0] == pytest.approx(weights[1], rel=1e-4)


def test_same_seed_gives_the_same_number():
    weights = []
    for _ in range(2):
        match = auto(ChannelTransform())
        distiller = distiller_of(match, norm=True)
        train(distiller, BATCHES + 1, optimizer=torch.optim.SGD(distiller.parameters(), 0.1))
        weights.append(match.weight)
    assert weights[0] == weights[1]


def test_while_it_measures_the_weight_is_none_and_the_criterion_weighs_nothing():
    match = auto()
    distiller = distiller_of(match)
    plain = copy.deepcopy(distiller.student)
    assert match.weight is None
    train(distiller, BATCHES)
    assert match.weight is None
    x = images(4, seed=BATCHES - 1)
    F.cross_entropy(plain(x), LABELS).backward()
    for name, parameter in distiller.student.named_parameters():
        torch.testing.assert_close(parameter.grad, plain.get_parameter(name).grad)


def test_measuring_leaves_gradients_of_zero_and_not_none_on_criterion_and_projector():
    match = Match("body", "body", ChannelTransform(), weight="auto", projector=conv1x1)
    train(distiller_of(match), 1)
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in match.parameters())


def test_forward_passes_without_training_are_not_measured():
    match = auto()
    distiller = distiller_of(match)
    alone = auto()
    train(distiller_of(alone), BATCHES + 1)
    for step in range(BATCHES + 1):
        with torch.no_grad():
            assert distiller(images(seed=50)).loss == 0
        train(distiller, 1, first=step)
        distiller.eval()(images(seed=51))
        distiller.train()
    assert match.weight == pytest.approx(alone.weight, rel=1e-5)


def test_batch_without_a_backward_pass_is_not_counted():
    match = auto()
    distiller = distiller_of(match)
    train(distiller, 2)
    distiller(images(4, seed=77))
    train(distiller, BATCHES - 2, first=2)
    assert match.weight is None
    train(distiller, 1)
    expected = weight_by_hand(distiller.student, distiller.teacher.model, match.criterion, layers=4)
    assert match.weight == pytest.approx(expected, rel=1e-4)


def test_forward_that_raised_leaves_nothing_to_measure_in_eval_mode():
    match = auto()
    distiller = distiller_of(match)
    train(distiller, 2)
    with pytest.raises(RuntimeError, match="expected input"):
        distiller(torch.zeros(1, 1, 16, 16))
    train(distiller.eval(), 1, first=50)
    train(distiller.train(), BATCHES - 2, first=2)
    assert match.weight is None
    train(distiller, 1)
    expected = weight_by_hand(distiller.student, distiller.teacher.model, match.criterion, layers=4)
    assert match.weight == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("layer", ["stem", "body"], ids=["two layers", "one layer"])
def test_two_automatic_matches_get_what_each_would_get_alone(layer):
    alone = []
    for match in (auto(), auto(nn.L1Loss(), layer, layer)):
        train(distiller_of(match), BATCHES + 1)
        alone.append(match.weight)
    both = auto(), auto(nn.L1Loss(), layer, layer)
    train(distiller_of(*both), BATCHES + 1)
    assert [match.weight for match in both] == pytest.approx(alone, rel=1e-5)


def test_settled_weight_is_restored_by_load_state_dict():
    match = auto()
    distiller = distiller_of(match)
    train(distiller, BATCHES + 1)
    other = auto()
    distiller_of(other).load_state_dict(distiller.state_dict())
    assert other.weight == match.weight


@pytest.mark.parametrize("broken_after", [1, 5, BATCHES])
def test_run_that_is_broken_while_it_measures_settles_as_an_unbroken_one(broken_after):
    whole, part, rest = auto(), auto(), auto()
    unbroken = distiller_of(whole)
    train(unbroken, BATCHES + 1)
    broken, resumed = distiller_of(part), distiller_of(rest)
    train(broken, broken_after)
    resumed.load_state_dict(copy.deepcopy(broken.state_dict()))
    train(resumed, BATCHES + 1 - broken_after, first=broken_after)
    assert rest.weight == whole.weight


def test_loss_that_never_reaches_backward_raises_with_the_remedy():
    distiller = distiller_of(auto())
    for step in range(4 * BATCHES):
        F.cross_entropy(distiller(images(4, seed=step)).output, LABELS).backward()
    with pytest.raises(RuntimeError, match=r"weight='auto' of MSELoss:body saw no usable .* add the distiller's .loss"):
        distiller(images(4))


def test_number_is_logged_once_it_is_known(caplog):
    match = auto()
    with caplog.at_level(logging.INFO, "limbeck"):
        train(distiller_of(match), BATCHES + 3)
    assert caplog.messages == [f"weight of MSELoss:body set to {match.weight:.4g}"]


@pytest.mark.parametrize("whole", [True, False], ids=["distiller", "student"])
def test_automatic_weight_settles_under_compilation_too(whole):
    torch.compiler.reset()
    eager, match = auto(), auto()
    train(distiller_of(eager), BATCHES + 1)
    student, teacher = convnet(4, norm=False), convnet(4, norm=False, seed=1)
    distiller = Distiller(student if whole else compiled(student), teacher, [match], example=(images(),))
    train(distiller, BATCHES + 1, call=torch.compile(distiller, backend="aot_eager") if whole else distiller)
    assert match.weight == pytest.approx(eager.weight, rel=1e-4)
