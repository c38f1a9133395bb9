import copy
import logging
from contextlib import nullcontext
from math import exp, log

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from limbeck import Capture, Distiller, Layer, Match, conv1x1, pooled, tokens_to_map
from limbeck.core.auto_weight import BATCHES, EVERY, FALL, FLOOR, RATE, RATIO
from limbeck.criteria import CWD, KD, ChannelTransform
from tests.networks import Block, TokenNet, compiled, convnet, images

LABELS = torch.tensor([0, 1, 2, 3])


def distiller_of(*matches, norm=False, **options):
    student, teacher = convnet(4, norm=norm), convnet(4, norm=norm, seed=1)
    return Distiller(student, teacher, matches, example=(images(),), **options)


def auto(criterion=None, student="body", teacher="body", **options):
    return Match(student, teacher, criterion or nn.MSELoss(), weight="auto", **options)


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


def quotients_by_hand(student, teacher, criterion, layers=4, steps=range(BATCHES)):
    for step in steps:
        x = images(4, seed=step)
        feature, target = student[:layers](x), teacher[:layers](x)
        task = F.cross_entropy(student[layers:](feature), LABELS)
        yield quotient(task, criterion(feature, target), feature)


def mean_by_hand(quotients):
    """The exponential mean in logarithms, which starts as a plain one."""
    mean = 0.0
    for count, each in enumerate(quotients):
        mean += max(RATE, 1 / (count + 1)) * (log(each) - mean)
    return exp(mean)


def weight_by_hand(distiller, match, **options):
    return RATIO * mean_by_hand(
        quotients_by_hand(distiller.student, distiller.teacher.model, match.criterion, **options)
    )


# --- what is measured ---


@pytest.mark.parametrize("make", [nn.MSELoss, ChannelTransform, CWD])
def test_weight_is_the_ratio_times_the_mean_of_the_quotients_of_the_gradient_norms(make):
    match = auto(make())
    distiller = distiller_of(match)
    train(distiller, BATCHES + 1)
    assert match.weight == pytest.approx(weight_by_hand(distiller, match), rel=1e-4)


def test_weight_goes_on_to_be_measured_every_few_steps():
    match = auto()
    distiller = distiller_of(match)
    train(distiller, BATCHES + 2 * EVERY + 1)
    steps = [*range(BATCHES), BATCHES + EVERY - 1, BATCHES + 2 * EVERY - 1]
    assert match.weight == pytest.approx(weight_by_hand(distiller, match, steps=steps), rel=1e-4)
    with torch.no_grad():
        distiller.student.head.weight.mul_(10)
    before = match.weight
    train(distiller, 6 * EVERY, first=40)
    assert match.weight > 2 * before


def test_weight_counts_from_the_second_step_on():
    match = auto()
    distiller = distiller_of(match)
    assert match.weight is None
    train(distiller, 1)
    assert all(parameter.grad is None for parameter in match.parameters())
    x = images(4, seed=1)
    value = F.mse_loss(distiller.student[:4](x), distiller.teacher.model[:4](x))
    torch.testing.assert_close(distiller(x).loss, match.weight * value)
    assert match.weight == pytest.approx(weight_by_hand(distiller, match, steps=[0]), rel=1e-4)


def test_in_the_first_step_the_task_alone_trains_the_student_and_the_criterion_trains_itself():
    match = auto(ChannelTransform(), projector=conv1x1)
    distiller = distiller_of(match)
    plain = copy.deepcopy(distiller.student)
    train(distiller, 1)
    F.cross_entropy(plain(images(4, seed=0)), LABELS).backward()
    for name, parameter in distiller.student.named_parameters():
        torch.testing.assert_close(parameter.grad, plain.get_parameter(name).grad)
    assert all(parameter.grad.any() for parameter in match.parameters())


@pytest.mark.parametrize("coupled", [False, True])
def test_student_gets_the_gradient_of_the_weighted_value_in_measured_and_other_steps(coupled):
    match = auto(projector=conv1x1, coupled=coupled)
    distiller = distiller_of(match)
    train(distiller, BATCHES - 1)
    for step in range(3):  # the first and the second are measured
        clone = copy.deepcopy(distiller)
        train(distiller, 1, first=step)
        x = images(4, seed=step)
        clone.zero_grad()
        feature, target = clone.student[:4](x), clone.teacher.model[:4](x)
        task = F.cross_entropy(clone.student[4:](feature), LABELS)
        clone._is_due()  # counts what came before
        (task + clone.matches[0].weight * F.mse_loss(clone.matches[0].projector(feature), target)).backward()
        for name, parameter in distiller.student.named_parameters():
            torch.testing.assert_close(parameter.grad, clone.student.get_parameter(name).grad)
        own = match.projector.weight.grad, clone.matches[0].projector.weight.grad
        assert torch.allclose(*own, rtol=1e-4) == coupled


def test_gradient_of_the_task_is_taken_where_the_layer_gives_its_output_and_not_where_it_is_read():
    layer = Layer("block", tokens_to_map(1))  # what it reads is not on the way to the task's loss
    match = auto(student=layer, teacher=layer)
    student, teacher = TokenNet(4), TokenNet(4, seed=1)
    train(Distiller(student, teacher, [match], example=(images(),)), BATCHES + 1)
    quotients = []
    for step in range(BATCHES):
        tokens, target = (
            Capture(model, [Layer("block")])(images(4, seed=step))[1][Layer("block")] for model in (student, teacher)
        )
        task = F.cross_entropy(student.head(tokens.mean(1)), LABELS)
        quotients.append(quotient(task, F.mse_loss(tokens[:, 1:], target[:, 1:]), tokens))
    assert match.weight == pytest.approx(RATIO * mean_by_hand(quotients), rel=1e-4)


def test_criterions_gradient_is_taken_there_too_where_the_read_is_a_mean():
    layer = Layer("body", pooled())
    match = auto(student=layer, teacher=layer)
    distiller = distiller_of(match)
    train(distiller, BATCHES + 1)

    def of_means(student, teacher):
        return F.mse_loss(student.mean((2, 3)), teacher.mean((2, 3)))

    expected = RATIO * mean_by_hand(quotients_by_hand(distiller.student, distiller.teacher.model, of_means))
    assert match.weight == pytest.approx(expected, rel=1e-4)


class Stages(nn.Module):
    """Gives all its features beside the scores, each made from the one before, as transformers' models do."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.second = nn.Conv2d(3, 4, 3, 2), nn.Conv2d(4, 4, 3, 2)
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        first = self.first(x)
        second = self.second(first)
        return {"scores": self.head(second.mean((2, 3))), "hidden": (first, second)}


def test_of_all_the_tensors_that_a_layer_returns_those_count_from_which_the_feature_is_read():
    weights = []
    for layer in (Layer("second"), Layer("", lambda output: output["hidden"][1])):
        match = auto(student=layer, teacher=layer)
        distiller = Distiller(Stages(0), Stages(1), [match], example=(images(),))
        for step in range(BATCHES + 1):
            out = distiller(images(4, seed=step))
            (F.cross_entropy(out.output["scores"], LABELS) + out.loss).backward()
        weights.append(match.weight)
    assert weights[1] == pytest.approx(weights[0], rel=1e-5)


class Hidden:
    """An output that only its read can look into."""

    def __init__(self, scores, feature):
        self.scores, self.feature = scores, feature


def test_feature_in_an_object_that_hides_it_is_measured_like_any_other():
    weights = []
    reads = Layer("a"), Layer("", lambda output: output.feature)
    for layer in reads:

        def steps(block, x):
            feature = block.a(x)
            return Hidden(block.b(feature.relu()).mean((2, 3)), feature)

        student, teacher = Block(steps), Block(steps)
        nn.init.normal_(teacher.a.weight)
        match = auto(student=layer, teacher=layer)
        distiller = Distiller(student, teacher, [match], example=(images(),))
        for step in range(3):
            out = distiller(images(3, seed=step))
            (F.cross_entropy(out.output.scores, LABELS[:3]) + out.loss).backward()
        distiller(images())
        weights.append(match.weight)
    assert weights[1] == pytest.approx(weights[0], rel=1e-5)


def test_weight_at_the_input_of_an_activation_is_that_at_the_output_of_the_layer_before():
    weights = []
    for layer in (Layer("body"), Layer("body_act", input=True)):
        match = auto(student=layer, teacher=layer)
        train(distiller_of(match), BATCHES + 1)
        weights.append(match.weight)
    assert weights[0] == weights[1]


@pytest.mark.parametrize("factor", [2.0**16, 0.125])
def test_factor_on_the_whole_loss_cancels(factor):
    weights = []
    for scale in (1.0, factor):
        match = auto()
        train(distiller_of(match), BATCHES + 1, factor=scale)
        weights.append(match.weight)
    assert weights[0] == pytest.approx(weights[1], rel=1e-4)


def test_gradients_too_small_for_float16_are_measured_under_loss_scaling():
    weights = []
    for dtype in (torch.float32, torch.float16):
        match = auto(lambda student, teacher: 1e-3 * F.mse_loss(student, teacher), "stem", "stem")
        distiller = distiller_of(match)
        for step in range(BATCHES + 1):
            with torch.autocast("cpu", dtype, enabled=dtype == torch.float16):
                out = distiller(images(4, seed=step))
                loss = F.cross_entropy(out.output.float(), LABELS) + out.loss
            (2.0**12 * loss).backward()
        weights.append(match.weight)
    assert weights[1] == pytest.approx(weights[0], rel=0.02)


def test_batch_whose_gradient_is_not_finite_or_zero_is_left_out():
    match, alone = auto(), auto()
    distiller, other = distiller_of(match), distiller_of(alone)
    for step in range(2):
        for each, factors in ((distiller, (1.0, torch.inf, 0.0)), (other, (1.0,))):
            for factor in factors:
                out = each(images(4, seed=step))
                (factor * F.cross_entropy(out.output, LABELS) + out.loss).backward()
    for each in (distiller, other):
        each(images())
    assert match.weight == pytest.approx(alone.weight, rel=1e-5)


def test_frozen_norms_in_eval_mode_are_trained_as_well():
    match = auto()
    distiller = distiller_of(match).eval()
    train(distiller, BATCHES + 1)
    assert match.weight == pytest.approx(weight_by_hand(distiller, match), rel=1e-4)


def test_forward_passes_without_a_backward_pass_are_not_counted():
    match = auto()
    distiller = distiller_of(match)
    for step in range(BATCHES + 1):
        with torch.no_grad():
            distiller(images(seed=50))
        distiller.eval()(images(seed=51))
        train(distiller.train(), 1, first=step)
        distiller(images(4, seed=77))
    assert match.weight == pytest.approx(weight_by_hand(distiller, match), rel=1e-4)


def test_forward_that_raised_leaves_nothing_behind():
    match = auto()
    distiller = distiller_of(match)
    train(distiller, 2)
    with pytest.raises(RuntimeError, match="expected input"):
        distiller(torch.zeros(1, 1, 16, 16))
    train(distiller, BATCHES - 1, first=2)
    assert match.weight == pytest.approx(weight_by_hand(distiller, match), rel=1e-4)


# --- several ---


def test_matches_share_one_ratio_by_the_modules_at_which_they_read():
    matches = [*(auto(student=layer, teacher=layer) for layer in ("stem", "body", "head")), auto(KD(), "", "")]
    matches.append(Match("norm", "norm", nn.MSELoss()))
    distiller_of(*matches)
    assert [match.auto.share for match in matches[:4]] == [RATIO / 4] * 4


def test_matches_of_one_feature_divide_its_part_and_those_of_one_modules_several_features_do_not():
    first, second = (Layer("", lambda output, index=index: output["hidden"][index]) for index in (0, 1))
    criteria = zip((nn.MSELoss(), nn.L1Loss(), nn.SmoothL1Loss()), (first, second, second), strict=True)
    matches = [auto(criterion, layer, layer) for criterion, layer in criteria]
    distiller = Distiller(Stages(0), Stages(1), matches, example=(images(),))
    assert [match.auto.share for match in distiller.matches] == [RATIO, RATIO / 2, RATIO / 2]


@pytest.mark.parametrize("forwards", [1, 2])
def test_criteria_at_one_layer_are_no_part_of_the_tasks_gradient_there(forwards):
    matches = auto(), auto(nn.L1Loss())
    distiller = distiller_of(*matches)
    for step in range(BATCHES + 1):
        outs = [distiller(images(4, seed=step)) for _ in range(forwards)]
        sum(F.cross_entropy(out.output, LABELS) + out.loss for out in outs).backward()
    for match in matches:
        assert match.weight == pytest.approx(weight_by_hand(distiller, match) / 2, rel=1e-4)


# --- bounds ---


def test_task_that_is_learnt_by_heart_does_not_silence_the_teacher():
    match = auto()
    distiller = distiller_of(match)
    train(distiller, BATCHES + 1)
    settled = match.weight
    for step in range(20 * EVERY):
        out = distiller(images(4, seed=step))
        (1e-6 * F.cross_entropy(out.output, LABELS) + out.loss).backward()
    assert match.weight == pytest.approx(FALL * settled, rel=0.1)


@pytest.mark.parametrize("make", [nn.MSELoss, CWD])
def test_student_that_starts_as_its_teacher_gets_a_weight_with_a_bound(make):
    match = auto(make())
    student = convnet(4, norm=False)
    distiller = Distiller(student, copy.deepcopy(student), [match], example=(images(),))
    train(distiller, BATCHES + 1)
    x = images(4, seed=0)
    feature = student[:4](x)
    task = torch.autograd.grad(F.cross_entropy(student[4:](feature), LABELS), feature)[0]
    bound = RATIO * task.norm() * feature.norm() / FLOOR / match.criterion(torch.zeros_like(feature), feature)
    assert match.weight == pytest.approx(bound.item(), rel=0.5)
    train(distiller, 10 * EVERY, optimizer=torch.optim.SGD(distiller.parameters(), 0.05))
    assert match.weight < 2 * bound
    assert distiller(x).loss.isfinite()


# --- state ---


def test_same_seed_gives_the_same_number():
    weights = []
    for _ in range(2):
        match = auto(ChannelTransform())
        distiller = distiller_of(match, norm=True)
        train(distiller, BATCHES + 1, optimizer=torch.optim.SGD(distiller.parameters(), 0.1))
        weights.append(match.weight)
    assert weights[0] == weights[1]


def test_weight_is_restored_by_load_state_dict():
    match = auto()
    distiller = distiller_of(match)
    train(distiller, BATCHES + 1)
    other = auto()
    distiller_of(other).load_state_dict(distiller.state_dict())
    assert other.weight == match.weight


@pytest.mark.parametrize("broken_after", [1, 5, BATCHES, BATCHES + 1, BATCHES + 3, 2 * BATCHES + 1])
def test_broken_run_goes_on_as_the_unbroken_one_bit_by_bit(broken_after):
    def start():
        distiller = distiller_of(auto(ChannelTransform()), auto(nn.L1Loss(), "stem", "stem"))
        return distiller, torch.optim.SGD(distiller.parameters(), 0.05, momentum=0.9)

    unbroken, optimizer = start()
    train(unbroken, 4 * EVERY, optimizer=optimizer)
    broken, optimizer = start()
    train(broken, broken_after, optimizer=optimizer)
    states = copy.deepcopy((broken.state_dict(), optimizer.state_dict()))
    resumed, optimizer = start()
    resumed.load_state_dict(states[0], strict=True)
    optimizer.load_state_dict(states[1])
    train(resumed, 4 * EVERY - broken_after, first=broken_after, optimizer=optimizer)
    for name, value in unbroken.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_copy_is_measured_by_itself():
    match = auto()
    distiller = distiller_of(match)
    train(distiller, 3)
    clone = copy.deepcopy(distiller)
    train(clone, BATCHES)
    train(distiller, BATCHES - 2, first=3)
    assert match.weight == pytest.approx(weight_by_hand(distiller, match), rel=1e-4)


def test_measurements_stay_exact_in_a_distiller_in_half_precision():
    match = auto()
    distiller = distiller_of(match).to(torch.bfloat16)
    assert {match.auto.sums.dtype, match.auto.state.dtype} == {torch.float32}
    for step in range(3):
        out = distiller(images(4, seed=step).bfloat16())
        (F.cross_entropy(out.output.float(), LABELS) + out.loss).backward()
    assert distiller(images().bfloat16()).loss > 0


def test_loss_that_never_reaches_backward_raises_with_the_remedy():
    distiller = distiller_of(auto())
    for step in range(4 * BATCHES):
        F.cross_entropy(distiller(images(4, seed=step)).output, LABELS).backward()
    with pytest.raises(RuntimeError, match=r"weight='auto' of MSELoss:body saw no usable .* add the distiller's .loss"):
        distiller(images(4))


def test_task_that_gives_no_gradient_raises_with_the_remedy():
    distiller = distiller_of(auto())
    for step in range(4 * BATCHES):
        distiller(images(4, seed=step)).loss.backward()
    with pytest.raises(RuntimeError, match=r"saw no usable gradient in 32 .* to a loss of the task's .* or pass a num"):
        distiller(images(4))


def test_steps_go_on_to_be_measured_while_there_is_nothing_to_be_seen_in_them():
    match = auto()
    distiller = distiller_of(match)
    for step in range(BATCHES + 3):
        distiller(images(4, seed=step)).loss.backward()
    train(distiller, 1)
    distiller(images())
    assert match.weight == pytest.approx(weight_by_hand(distiller, match, steps=[0]), rel=1e-4)


def test_number_is_logged_once_it_has_settled(caplog):
    match = auto()
    distiller = distiller_of(match)
    with caplog.at_level(logging.INFO, "limbeck"):
        train(distiller, BATCHES + 1)
        settled = match.weight
        train(distiller, 3)
    assert caplog.messages == [f"weight of MSELoss:body: {settled:.4g}"]


# --- compilation ---


@pytest.mark.parametrize("whole", [True, False], ids=["distiller", "student"])
def test_under_compilation_the_first_steps_are_measured_uncompiled_and_the_weight_stays_from_then_on(whole):
    torch.compiler.reset()
    eager, match = auto(), auto()
    train(distiller_of(eager), BATCHES + 1)
    student, teacher = convnet(4, norm=False), convnet(4, norm=False, seed=1)
    distiller = Distiller(student if whole else compiled(student), teacher, [match], example=(images(),))
    call = torch.compile(distiller, backend="aot_eager") if whole else distiller
    train(distiller, BATCHES + 1, call=call)
    assert match.weight == pytest.approx(eager.weight, rel=1e-4)
    settled = match.weight
    train(distiller, 2 * EVERY, call=call)
    assert match.weight == settled


def test_one_graph_is_refused_while_it_measures_and_made_afterwards():
    match = auto()
    distiller = distiller_of(match)
    with pytest.raises(Exception, match=r"measured without compilation in the first 9 .* fullgraph=True, or pass a"):
        compiled(distiller)(images())
    train(distiller, BATCHES + 1)
    train(distiller, 2, call=compiled(distiller))


def test_run_that_goes_on_with_a_weight_that_has_settled_is_compiled_at_once():
    for steps, settled in ((BATCHES, False), (BATCHES + 1, True)):
        torch.compiler.reset()
        broken, resumed = distiller_of(auto()), distiller_of(auto())
        train(broken, steps)
        resumed.load_state_dict(broken.state_dict())
        with nullcontext() if settled else pytest.raises(Exception, match="measured without compilation"):
            train(resumed, 1, first=steps, call=compiled(resumed))
