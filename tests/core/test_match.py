"""What a Match takes and builds, and what it refuses in words."""

import copy
import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from limbeck import (
    Distiller,
    EarlyDecay,
    Layer,
    Match,
    conv1x1,
    conv1x1_if_needed,
    conv_bn,
    conv_bn_relu,
    first,
    orthogonal,
)
from limbeck.core.criterion import declared_by
from limbeck.criteria import CWD, FGD, FKD, KD, MGD, OFD, PKD, RKD, ChannelTransform, ReviewKD, SimilarityPreserving
from tests.networks import Block, TokenNet, convnet, images

MSE = nn.MSELoss
BOXES = [torch.tensor([[0.1, 0.1, 0.5, 0.6]])] * 2
PROJECTORS = [conv1x1, conv1x1_if_needed, conv_bn, conv_bn_relu, orthogonal]
BUILT = [ChannelTransform, MGD, FKD, FGD, ReviewKD, OFD]


def distiller_of(*matches, student=None, teacher=None, dtype=torch.float32, **options):
    student, teacher = student or convnet(4), teacher or convnet(8, seed=1)
    options = {"example": images().to(dtype)} | options
    return Distiller(student.to(dtype), teacher.to(dtype), matches, **options)


def pair(projector=None, criterion=None, **options):
    layers = ("stem", "body") if isinstance(criterion, ReviewKD) else "body"
    return Match(layers, layers, criterion or MSE(), projector=projector, **options)


def trains(distiller, x, **given):
    """Whether a step in training mode brings a finite gradient to everything that is trained."""
    out = distiller.train()(x, **given)
    (out.output.float().square().mean() + out.loss).backward()
    own = [parameter for match in distiller.matches for parameter in match.parameters()]
    return all(p.grad is not None and p.grad.isfinite().all() for p in (*own, distiller.student.stem.weight))


# --- precision and device ---


@pytest.mark.parametrize("projector", PROJECTORS, ids=lambda projector: projector.__name__)
def test_every_projector_is_built_as_precise_as_the_student(projector):
    distiller = distiller_of(pair(projector), dtype=torch.float64)
    assert {parameter.dtype for parameter in distiller.parameters()} == {torch.float64}
    assert distiller(images().double()).loss.dtype == torch.float64
    assert trains(distiller, images().double())


@pytest.mark.parametrize("criterion", BUILT, ids=lambda criterion: criterion.__name__)
def test_every_criterion_with_weights_is_built_as_precise_as_the_student(criterion):
    match = pair(criterion=criterion())
    distiller = distiller_of(match, dtype=torch.float64, teacher=convnet(4, seed=1), truth=BOXES)
    assert {parameter.dtype for parameter in distiller.parameters()} == {torch.float64}
    assert trains(distiller, images().double(), truth=BOXES)


@pytest.mark.parametrize("projector", PROJECTORS, ids=lambda projector: projector.__name__)
def test_distiller_held_in_bfloat16_runs_every_projector(projector):
    distiller = distiller_of(pair(projector)).to(torch.bfloat16)
    assert {parameter.dtype for parameter in distiller.student.parameters()} == {torch.bfloat16}
    assert trains(distiller, images().bfloat16())


@pytest.mark.parametrize("criterion", BUILT, ids=lambda criterion: criterion.__name__)
def test_distiller_held_in_bfloat16_runs_every_criterion_with_weights(criterion):
    match = pair(criterion=criterion())
    distiller = distiller_of(match, teacher=convnet(4, seed=1), truth=BOXES)
    expected = distiller.eval()(images(), truth=BOXES).loss
    low = distiller.to(torch.bfloat16)
    torch.testing.assert_close(low(images().bfloat16(), truth=BOXES).loss.float(), expected, rtol=0.1, atol=1e-3)
    assert trains(low, images().bfloat16(), truth=BOXES)


def test_criterion_of_a_user_gets_features_in_the_precision_of_its_weights():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(16, 1)

        def forward(self, student, teacher):
            return self.linear((student - teacher).mean((2, 3))).square().mean()

    distiller = distiller_of(pair(conv1x1, Own())).to(torch.bfloat16)
    assert trains(distiller, images().bfloat16())


# --- names ---


def test_matches_of_one_name_are_told_apart_by_the_teachers_layer():
    distiller = distiller_of(
        Match("stem", "stem", MSE(), projector=conv1x1),
        Match("stem", "norm", MSE(), projector=conv1x1),
        Match("body", "body", MSE(), projector=conv1x1),
    )
    assert list(distiller(images()).losses) == ["MSELoss:stem->stem", "MSELoss:stem->norm", "MSELoss:body"]


def test_matches_that_only_read_otherwise_are_told_apart_by_number_or_by_label():
    models = [nn.Sequential(convnet(4, seed=seed), Block(lambda _, x: (x, 2 * x))) for seed in (0, 1)]
    reads = [first, lambda output: output[1]]
    matches = [Match(Layer("1", read), Layer("1", read), KD()) for read in reads]
    distiller = distiller_of(*matches, student=models[0], teacher=models[1])
    assert list(distiller(images()).losses) == ["KD:1->1#1", "KD:1->1#2"]
    layers = [Layer("1", read, label=f"/{index}") for index, read in enumerate(reads)]
    matches = [Match(layer, layer, KD()) for layer in layers]
    distiller = distiller_of(*matches, student=convnet_pair(2), teacher=convnet_pair(3))
    assert list(distiller(images()).losses) == ["KD:1/0", "KD:1/1"]


def convnet_pair(seed):
    return nn.Sequential(convnet(4, seed=seed), Block(lambda _, x: (x, 2 * x)))


def test_name_that_is_given_is_that_of_the_loss():
    distiller = distiller_of(Match("", "", KD(), name="logits"), Match("", "", KD(2.0), weight=2))
    assert list(distiller(images()).losses) == ["logits", "KD:output"]


def test_partial_of_a_function_has_the_functions_name():
    assert str(Match("", "", partial(F.smooth_l1_loss, beta=2.0))) == "smooth_l1_loss:output"


# --- refused in words ---


@pytest.mark.parametrize(
    ("criterion", "message"),
    [
        (MSE, r"criterion is the class MSELoss; pass one of it, MSELoss\(\)"),
        ("mse", r"criterion is 'mse'; it is called with the two features, as nn.MSELoss\(\)"),
        (None, "criterion is None; it is called"),
    ],
)
def test_criterion_that_is_none_is_refused(criterion, message):
    with pytest.raises(TypeError, match=message):
        Match("body", "body", criterion)


@pytest.mark.parametrize("projector", [nn.Conv2d(8, 16, 1), "conv1x1"], ids=["instance", "name"])
def test_projector_that_is_built_already_or_a_name_is_refused(projector):
    with pytest.raises(TypeError, match=r"projector is .*onv.*1.*; it is a function .* pass lambda student, teacher:"):
        Match("body", "body", MSE(), projector=projector)


@pytest.mark.parametrize(
    ("layer", "error", "message"),
    [
        (nn.Sequential(nn.ReLU()), TypeError, r"Sequential\((.|\n)* is no layer; name one by its path, as model.named"),
        (0, TypeError, "0 is no layer"),
        (None, TypeError, "None is no layer"),
        (("body", 1), TypeError, "1 is no layer"),
        ((), ValueError, "no layer: name one or several"),
    ],
    ids=str,
)
def test_what_is_no_layer_is_refused(layer, error, message):
    for layers in ((layer, "body"), ("body", layer)):
        with pytest.raises(error, match=message):
            Match(*layers, nn.MSELoss())


def test_projector_of_a_user_is_built_by_a_function():
    own = nn.Conv2d(8, 16, 3, padding=1)
    assert trains(distiller_of(pair(lambda student, teacher: own)), images())


@pytest.mark.parametrize("weight", [math.nan, math.inf, -math.inf, True, np.float32("nan")], ids=str)
def test_weight_that_is_not_finite_or_a_truth_value_is_refused(weight):
    with pytest.raises(ValueError, match=r"weight is .*; it (has to be finite|is a number, 'auto', or a function)"):
        Match("", "", KD(), weight=weight)


@pytest.mark.parametrize("weight", [-1, -0.5, np.float32(-2)], ids=str)
def test_weight_below_zero_is_refused_with_the_remedy(weight):
    with pytest.raises(ValueError, match=r"weight is .*-.*; below 0 .* pass lambda student, teacher: -similarity"):
        Match("", "", KD(), weight=weight)


def test_weight_that_is_set_later_is_refused_with_the_remedy():
    match = Match("", "", KD())
    with pytest.raises(AttributeError, match=r"keeps its weight; pass a function of progress, and call .*set_progress"):
        match.weight = 0.5
    assert match.weight == 1


@pytest.mark.parametrize(
    ("weight", "told"), [("auto", "auto"), (0, "0.0"), (EarlyDecay(6.0), "EarlyDecay(weight=6.0, factor=0.9")]
)
def test_match_says_what_follows_what_and_its_weight(weight, told):
    assert f"stem+body follows output, weight={told}" in repr(Match(("stem", "body"), "", KD(), weight=weight))


@pytest.mark.parametrize("weight", [np.float32(0.5), np.int64(2), 3], ids=repr)
def test_numbers_of_numpy_are_weights(weight):
    match = Match("", "", KD(), weight=weight)
    assert match.weight == float(weight)
    assert type(match.weight) is float


@pytest.mark.parametrize(
    "criterion",
    [MSE(), F.smooth_l1_loss, ChannelTransform(), KD(), CWD()],
    ids=lambda it: getattr(it, "__name__", str(it)),
)
def test_tuple_of_layers_for_a_criterion_of_one_is_refused(criterion):
    with pytest.raises(
        TypeError, match=r"tuples of features, of 2 and 2 layers, .* pass Match\(layer, layer, criterion"
    ):
        distiller_of(Match(("stem", "body"), ("stem", "body"), criterion), teacher=convnet(4, seed=1))


def test_one_layer_beside_a_tuple_reaches_the_criterion_as_it_is():
    seen = []

    def criterion(student, teacher):
        seen[:] = [student.shape, *(each.shape for each in teacher)]
        return student.mean() + sum(each.mean() for each in teacher)

    distiller_of(Match("body", ("stem", "body"), criterion))
    assert seen == [(2, 8, 4, 4), (2, 8, 8, 8), (2, 16, 4, 4)]


@pytest.mark.parametrize(
    ("layers", "projector", "message"),
    [
        (("body", "body"), None, r"student body gives .* teacher .*; for other channels pass projector=conv1x1"),
        (
            ("body", "body"),
            lambda s, t: nn.Conv2d(8, 9, 1),
            r"student body through the projector gives \(2, 9, 4, 4\).*; the projector has to give as many channels",
        ),
    ],
)
def test_remedy_for_other_channels_is_what_was_not_done_yet(layers, projector, message):
    with pytest.raises(ValueError, match=message):
        distiller_of(Match(*layers, MSE(), projector=projector))


@pytest.mark.parametrize("projector", [None, conv1x1])
def test_remedy_for_other_positions_is_a_read_and_no_projector(projector):
    student, teacher = TokenNet(4), TokenNet(8 if projector else 4, seed=1)
    teacher.token = nn.Parameter(torch.zeros(1, 5, teacher.token.shape[2]))
    with pytest.raises(ValueError, match=r"they have other positions: read tokens as maps"):
        distiller_of(Match("block", "block", MSE(), projector=projector), student=student, teacher=teacher)


# --- batches ---


@pytest.mark.parametrize("criterion", [MSE(), RKD(), SimilarityPreserving(), PKD()], ids=str)
def test_empty_batch_is_refused(criterion):
    distiller = distiller_of(pair(criterion=criterion), teacher=convnet(4, seed=1), example=images(4))
    with pytest.raises(ValueError, match=rf"{type(criterion).__name__}:body: the batch is empty"):
        distiller(images(4)[:0])


@pytest.mark.parametrize("criterion", [RKD(), SimilarityPreserving()], ids=str)
def test_last_batch_of_one_is_refused_with_the_remedy(criterion):
    distiller = distiller_of(pair(criterion=criterion), example=images(4))
    with pytest.raises(ValueError, match=r"this batch has 1; .* drop_last=True"):
        distiller(images(1))


@pytest.mark.parametrize("criterion", [MSE(), CWD(), ChannelTransform(), RKD(), KD()], ids=str)
def test_teacher_of_another_batch_size_is_refused(criterion):
    layer = "" if isinstance(criterion, KD) else "body"
    match = Match(layer, layer, criterion)
    distiller = distiller_of(match, teacher=convnet(4, seed=1), example=images(4))
    with pytest.raises(ValueError, match=r"student's feature \(4, .*the teacher's \(1, .*are not of one batch size"):
        distiller(images(4), teacher_inputs=images(1))


# --- used once ---


def test_match_of_another_distiller_is_refused():
    match = Match("", "", KD(), weight="auto")
    distiller_of(match)
    for used in (match, copy.deepcopy(match)):
        with pytest.raises(ValueError, match="KD:output is built for another Distiller already; make a Match for each"):
            distiller_of(used)


@pytest.mark.parametrize("at_once", [True, False])
def test_criterion_with_weights_of_another_match_is_refused(at_once):
    criterion, teacher = OFD(), convnet(4, seed=1)
    first, second = (Match(layer, layer, criterion) for layer in ("stem", "body"))
    if not at_once:
        distiller_of(first, teacher=teacher)
    with pytest.raises(ValueError, match=r"criterion of OFD:body is that of another match .* match its own OFD\(\)"):
        distiller_of(*[first, second] if at_once else [second], teacher=teacher)


def test_criterion_without_weights_may_be_that_of_several_matches():
    criterion = MSE()
    matches = [Match(layer, layer, criterion, projector=conv1x1) for layer in ("stem", "body")]
    assert len(distiller_of(*matches)(images()).losses) == 2


def test_what_a_criterion_does_not_declare_has_a_default():
    declared = declared_by(MSE())
    assert declared.build is None
    assert not any((declared.needs_truth, declared.any_shape, declared.mixed_precision))
    assert declared_by(FGD()).needs_truth == "the boxes of each image"
    assert declared_by(ChannelTransform).build is ChannelTransform.build
