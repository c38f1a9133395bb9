"""Weights that are functions of progress, alone and in a Distiller."""

import copy
import math

import pytest
import torch
from torch import nn

from limbeck import Distiller, EarlyDecay, Match, WarmUp
from tests.networks import compiled, convnet, images


def distiller_of(*weights):
    layers = ("stem", "body", "head")
    matches = [Match(layer, layer, nn.MSELoss(), weight=w) for layer, w in zip(layers, weights, strict=False)]
    return Distiller(convnet(4), convnet(4, seed=1), matches, example=(images(),))


@pytest.mark.parametrize(
    ("weight", "values"),
    [
        (EarlyDecay(6.0), {0: 6, 0.29: 6, 0.3: 5.4, 0.6: 4.86, 0.9: 4.374, 1: 4.374}),
        (EarlyDecay(2.0, factor=0.5, at=(0.5,)), {0: 2, 0.5: 1, 1: 1}),
        (WarmUp(8.0, until=0.25), {0: 0, 0.125: 4, 0.25: 8, 1: 8}),
        (WarmUp(1.2), {1 / 24: 0.6, 1 / 12: 1.2, 1: 1.2}),
        (WarmUp(3.0, until=0.0), {0: 3, 1: 3}),
    ],
    ids=str,
)
def test_schedule_has_the_stated_values(weight, values):
    assert {progress: weight(progress) for progress in values} == pytest.approx(values)


def test_criterion_is_multiplied_by_what_the_function_gives():
    distiller = distiller_of(lambda progress: 2 + progress, 5.0).eval()
    plain = distiller_of(1.0, 1.0).eval()(images()).losses
    for progress in (0.0, 0.25, 1.0):
        distiller.set_progress(progress)
        assert [match.weight for match in distiller.matches] == pytest.approx([2 + progress, 5])
        stem, body = distiller(images()).losses.values()
        torch.testing.assert_close([stem, body], [(2 + progress) * plain["MSELoss:stem"], 5 * plain["MSELoss:body"]])


def test_training_without_knowing_the_progress_raises_with_the_remedy():
    distiller = distiller_of(EarlyDecay(6.0), 1.0)
    with pytest.raises(
        RuntimeError, match=r"MSELoss:stem is a function of progress: call set_progress\(step / steps\)"
    ):
        distiller(images())
    distiller.set_progress(0.0)
    distiller(images()).loss.backward()


def test_validation_needs_no_progress():
    distiller = distiller_of(EarlyDecay(6.0))
    with torch.no_grad():
        assert distiller(images()).loss > 0
    assert distiller.eval()(images()).loss > 0


@pytest.mark.parametrize("progress", [-0.01, 1.01, math.nan])
def test_progress_outside_of_zero_to_one_is_refused(progress):
    with pytest.raises(ValueError, match=r"progress is .*; it is the part of training that is done, from 0 to 1"):
        distiller_of(EarlyDecay(6.0)).set_progress(progress)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weight_that_is_not_finite_is_refused(value):
    with pytest.raises(ValueError, match=f"the weight of MSELoss:stem is {value} at progress 0$"):
        distiller_of(lambda progress: value)
    distiller = distiller_of(lambda progress: value if progress > 0.4 else 1.0)
    with pytest.raises(ValueError, match=f"the weight of MSELoss:stem is {value} at progress 0.5"):
        distiller.set_progress(0.5)


def test_weight_that_falls_below_zero_is_refused_with_the_remedy():
    distiller = distiller_of(lambda progress: 1 - 2 * progress)
    distiller.set_progress(0.5)
    with pytest.raises(ValueError, match=r"the weight of MSELoss:stem is -1.0 at progress 1; below 0 .* -similarity"):
        distiller.set_progress(1.0)


def test_changing_weight_is_no_part_of_the_state_and_is_copied_and_moved():
    distiller = distiller_of(WarmUp(4.0, until=1.0))
    distiller.set_progress(0.5)
    assert not any("scheduled" in name for name in distiller.state_dict())
    clone = copy.deepcopy(distiller).to(torch.float64)
    assert clone(images().double()).loss.dtype == torch.float64
    clone.set_progress(1.0)
    assert (clone.matches[0].weight, distiller.matches[0].weight) == (4, 2)


def test_compiled_distiller_follows_the_progress_without_compiling_anew():
    distiller = distiller_of(WarmUp(4.0, until=1.0), 1.0)
    distiller.set_progress(0.0)
    call = compiled(distiller)
    call(images()).loss.backward()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for progress in (0.25, 1.0):
            distiller.set_progress(progress)
            torch.testing.assert_close(call(images()).losses, distiller(images()).losses, rtol=1e-4, atol=1e-5)
