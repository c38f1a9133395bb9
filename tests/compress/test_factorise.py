import json
from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.flop_counter import FlopCounterMode

from limbeck.compress.closed_form import Pairs, regress
from limbeck.compress.cost import flops_of
from limbeck.compress.factorise import factorise
from limbeck.compress.forms import rebuild
from limbeck.compress.mpo import MPO
from limbeck.compress.norms import renew_norms
from tests.compress.nets import correlated, images, residual_net

LAYERS = {
    "plain": (nn.Conv2d(6, 8, 3, padding=1), (6, 8)),
    "strided and dilated": (nn.Conv2d(6, 8, 3, stride=2, padding=2, dilation=2, bias=False), (6, 8)),
    "grouped": (nn.Conv2d(6, 8, 3, padding=1, groups=2), (3, 4)),
    "same, reflected": (nn.Conv2d(6, 8, (3, 5), padding="same", padding_mode="reflect"), (6, 8)),
    "1x1": (nn.Conv2d(6, 8, 1, stride=2), (None, 6)),
    "more outputs than inputs": (nn.Conv2d(2, 8, 1), (None, 2)),
    "grouped 1x1": (nn.Conv2d(6, 8, 1, groups=2), (None, 3)),
}


def given(layer):
    return torch.randn(4, 6 if layer.in_channels == 6 else 2, 9, 9)


@pytest.mark.parametrize("start", ["weights", "data", "sequence"])
@pytest.mark.parametrize("name", LAYERS)
def test_full_rank_is_lossless_in_every_form(name, start):
    layer, ranks = LAYERS[name]
    x = given(layer)
    x[:, 0] = 0  # a dead channel
    model = nn.Sequential(layer, nn.ReLU())
    made = factorise(model, example=x, data=[x], start=start, ranks={"0": ranks})
    assert isinstance(made.model[0], nn.Sequential)
    assert len(made.model[0]) == 3 - ranks.count(None)
    other = given(layer)  # of which the data say nothing in the dead channel
    torch.testing.assert_close(made.model(x), model(x), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(made.model(other), model(other), atol=5e-3, rtol=1e-4)
    assert made.rows[0].error < 1e-6


@pytest.mark.parametrize("outputs", [5, 40])
def test_the_factors_are_the_best_of_their_rank_as_found_by_hand(outputs):
    x, weight = torch.randn(200, 12).double(), torch.randn(outputs, 12).double()
    y = x @ weight.T + 0.1 * torch.randn(200, outputs).double()
    pairs = Pairs((x.T @ x)[None], (y.T @ x)[None], (y * y).sum()[None])
    by_hand = torch.linalg.lstsq(x, y).solution.T
    best, left = regress(pairs, torch.zeros(1, outputs, 12).double(), None)
    assert left is None
    torch.testing.assert_close(best[0], by_hand, atol=2e-2, rtol=2e-2)  # the floor pulls a little
    core, left = regress(pairs, by_hand[None], 3)
    fitted = x @ by_hand.T
    directions = torch.linalg.svd(fitted, full_matrices=False).Vh[:3]
    least = (y - fitted @ directions.T @ directions).square().sum()
    assert (y - x @ (left @ core)[0].T).square().sum() == pytest.approx(float(least), rel=1e-3)


@pytest.mark.parametrize("start", ["data", "sequence"])
@pytest.mark.parametrize("name", ["plain", "strided and dilated", "grouped", "1x1"])
def test_the_error_that_is_predicted_is_the_error_that_is_measured(name, start):
    layer, ranks = LAYERS[name]
    x = given(layer)
    fewer = tuple(None if rank is None else rank - 2 for rank in ranks)
    made = factorise(nn.Sequential(layer), example=x, data=[x[:2], x[2:]], start=start, ranks={"0": fewer})
    with torch.no_grad():
        y = layer(x)
        energy = (y if layer.bias is None else y - layer.bias[:, None, None]).square().sum()
        measured = float((made.model(x) - y).square().sum() / energy)
    assert made.rows[0].error == pytest.approx(measured, rel=1e-3)
    assert measured > 1e-4


def test_factors_that_see_the_data_lose_less_on_data_like_these_than_those_of_the_weights():
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))
    x, other = correlated(400, 64, 8).split([300, 100])
    error = {
        start: (factorise(model, example=x, data=[x], start=start).model(other) - model(other)).square().mean()
        for start in ("weights", "data", "sequence")
    }
    assert max(error["sequence"], error["data"]) < 0.2 * error["weights"]


@pytest.mark.parametrize("allocation", ["error", "uniform"])
def test_the_ratio_is_that_of_the_whole_model(allocation):
    model = nn.Sequential(nn.Embedding(50, 32), nn.Linear(32, 64), nn.Linear(64, 64))
    made = factorise(model, ratio=0.4, example=torch.arange(9), allocation=allocation)
    before, after = (sum(parameter.numel() for parameter in each.parameters()) for each in (model, made.model))
    assert made.parameters == (before, after)
    assert 0.4 <= made.ratio == pytest.approx(1 - after / before)
    assert made.ratio < 0.42


def test_the_ratio_may_be_that_of_the_operations():
    model, x = residual_net(32), images(64)
    made = factorise(model, ratio=0.5, example=x[:1], cost="flops")
    assert 0.45 < flops_of(made.model, x[:1]) / flops_of(model, x[:1]) <= 0.5
    assert sum(row.flops[1] for row in made.rows) < 0.5 * sum(row.flops[0] for row in made.rows)


def test_a_ratio_of_latency_takes_what_the_clock_says_of_each_layer(monkeypatch):
    def as_long_as_it_multiplies(run):
        with FlopCounterMode(display=False) as counter:
            run()
        return counter.get_total_flops() * 1e-6

    monkeypatch.setattr("limbeck.compress.latency.timed", as_long_as_it_multiplies)
    model, x = residual_net(), images(8)
    by_time, by_flops = (factorise(model, ratio=0.4, example=x[:1], cost=cost) for cost in ("latency", "flops"))
    assert [(row.path, row.ranks) for row in by_time.rows] == [(row.path, row.ranks) for row in by_flops.rows]
    assert flops_of(by_time.model, x[:1]) <= 0.6 * flops_of(model, x[:1])
    monkeypatch.setattr("limbeck.compress.latency.timed", lambda run: 1.0)  # as of tiny layers, where calls cost most
    with pytest.raises(ValueError, match="of the latency of Sequential can be saved at most"):
        factorise(model, ratio=0.4, example=x[:1], cost="latency")


def test_ranks_are_multiples_where_layers_are_wide_enough():
    made = factorise(residual_net(64), ratio=0.5, example=images(1), multiple=16)
    ranks = [rank for row in made.rows if row.form == "Tucker" and row.path != "0.0" for rank in row.ranks if rank]
    assert ranks
    assert not any(rank % 16 for rank in ranks)


def test_ranks_by_error_lose_less_than_uniform_ones():
    torch.manual_seed(0)
    simple = torch.randn(64, 2) @ torch.randn(2, 64)
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    with torch.no_grad():
        model[0].weight.copy_(simple / 8)
    x = torch.randn(200, 64)
    error = [(factorise(model, example=x, allocation=each).model(x) - model(x)).norm() for each in ("error", "uniform")]
    assert error[0] < 0.85 * error[1]


def test_norms_are_estimated_anew_and_stay_where_nothing_changed():
    model, x = residual_net(32), images(128)
    made = factorise(model, ratio=0.4, example=x[:1], data=[x], start="weights", keep=("0", "1.0"))
    assert torch.equal(made.model[1][0].body[1].running_var, model[1][0].body[1].running_var)
    after, before = made.model[1][1].body[1], model[1][1].body[1]
    assert not torch.allclose(after.running_var, before.running_var, rtol=0.02)
    seen = made.model[1][1].body[0](made.model[1][0](made.model[0](x)))
    assert (after.running_var / seen.var((0, 2, 3)) - 1).abs().mean() < 0.1


def test_a_pass_ends_where_the_last_norm_that_is_renewed_has_run():
    model = residual_net()
    smaller, passes, data = deepcopy(model), [], [images(16)] * 3
    smaller[4].register_forward_hook(lambda *_: passes.append("to the end"))
    renew_norms(model, smaller, data, but_within=["1"])
    assert passes == ["to the end"]


def test_what_was_compressed_is_rebuilt_from_json_and_tensors():
    model, x = residual_net(), images(64)
    made = factorise(model, example=x[:1], data=[x])
    again = residual_net()
    rebuild(again, json.loads(json.dumps(made.structure)))
    again.load_state_dict(made.model.state_dict())
    assert torch.equal(again(x), made.model(x))


def test_the_original_is_as_it_was():
    model, x = residual_net().train(), images(64)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    factorise(model, example=x[:1], data=[x])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_layers_that_cannot_be_factorised_stay_whole_and_say_why():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.head = nn.Embedding(20, 16), nn.Linear(16, 20, bias=False)
            self.head.weight = self.embedding.weight
            self.normed = weight_norm(nn.Linear(16, 16))
            self.attention = nn.MultiheadAttention(16, 2)
            self.depthwise = nn.Conv1d(16, 16, 1)
            self.depthwise2 = nn.Conv2d(16, 16, 3, padding=1, groups=16)
            self.unused, self.wide = nn.Linear(16, 16), nn.Linear(16, 16)

        def forward(self, x):
            x = self.wide(self.normed(self.embedding(x)))
            x = self.attention(x, x, x)[0]
            return self.head(self.depthwise2(x[:, :, None, None])[:, :, 0, 0])

    whole = factorise(Net(), ratio=0.05, example=torch.arange(8)).whole
    assert whole["head"] == "its weight is tied to another layer's"
    assert "parametrised" in whole["normed"]
    assert whole["attention.out_proj"] == "no factorised form of a NonDynamicallyQuantizableLinear"
    assert whole["depthwise"] == "no factorised form of a Conv1d"
    assert whole["depthwise2"] == "is depthwise"
    assert whole["unused"] == "does not run"


def test_a_ratio_out_of_reach_names_the_layers_that_bind():
    model = nn.Sequential(nn.Embedding(1000, 16), nn.Linear(16, 16), nn.Conv1d(8, 16, 3, padding=1))
    with pytest.raises(
        ValueError, match=r"0\.0\d+ of the parameters .* saved at most.*2 \(no factorised form of a Conv1d"
    ):
        factorise(model, ratio=0.5, example=torch.zeros(1, 8, dtype=torch.long))


def test_too_few_data_are_refused_with_what_to_do():
    model = nn.Sequential(nn.Linear(64, 64))
    with pytest.raises(ValueError, match=r"0 takes 64 inputs, and 1 batches of data bring it 8 rows.*8 times"):
        factorise(model, example=torch.randn(1, 64), data=[torch.randn(8, 64)])


@pytest.mark.parametrize("start", ["weights", "data", "sequence"])
def test_data_that_one_pass_uses_up_are_refused(start):
    batches = (images(8) for _ in range(4))
    with pytest.raises(ValueError, match=r"data is a generator, which can be gone over once.*pass a list of batches"):
        factorise(residual_net(), example=images(8), data=batches, start=start)


def test_a_model_without_layers_to_factorise_is_refused():
    with pytest.raises(ValueError, match=r"no layer to factorise \(0: is depthwise\)"):
        factorise(nn.Sequential(nn.Conv2d(4, 4, 3, groups=4)), example=torch.randn(1, 4, 8, 8))


def test_a_layer_that_runs_twice_is_fitted_to_both_calls():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, x):
            return self.layer(self.layer(x).relu())

    x = torch.randn(50, 8)
    made = factorise(Twice(), ratio=0.2, example=x, data=[x])
    assert made.rows[0].path == "layer"
    assert made.rows[0].flops[0] == 2 * 2 * 50 * 64


def test_a_matrix_product_operator_of_full_rank_is_the_layer():
    layer = nn.Linear(12, 20)
    operator = MPO(12, 20, rank=12)
    operator.load(layer.weight, layer.bias)
    x = torch.randn(2, 3, 12)
    torch.testing.assert_close(operator(x), layer(x), atol=1e-5, rtol=1e-5)
