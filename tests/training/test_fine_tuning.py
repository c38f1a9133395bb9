import pytest
import torch
from torch import nn

from limbeck.cli import main
from limbeck.data.inputs import Inputs
from limbeck.models.model import Model
from limbeck.tasks.classification.models import build_classifier
from limbeck.training.fine_tuning import describe, freeze
from limbeck.training.optimizer import make_optimizer, set_rate
from limbeck.training.recipe import Budget
from tests.places import ROOT
from tests.runs import weights


def network():
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def loaded_parameters(module, fresh=(), path=""):
    model = Model(module, Inputs(), ["a", "b"])
    model.mark_loaded(fresh=fresh, path=path)
    return model.loaded


def step(model, optimizer):
    torch.manual_seed(0)
    model(torch.rand(8, 3, 1, 1)).square().sum().backward()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer.step()
    return {name: (value - before[name]).abs().max().item() for name, value in model.state_dict().items()}


def test_what_was_loaded_moves_a_tenth_as_far_as_what_is_new():
    moved = {}
    for rate in (1.0, 0.1):
        torch.manual_seed(1)
        model = network()
        loaded = loaded_parameters(model, fresh=["3.weight", "3.bias"])
        assert loaded == {"0.weight", "0.bias", "1.weight", "1.bias"}
        parameters = [value for name, value in model.named_parameters() if name in loaded]
        optimizer = make_optimizer(model.parameters(), Budget(loaded_rate=rate, weight_decay=0.0), parameters)
        set_rate(optimizer, 0.01)
        moved[rate] = step(model, optimizer)
    assert moved[0.1]["1.weight"] == pytest.approx(moved[1.0]["1.weight"] / 10, rel=1e-3)
    assert moved[0.1]["3.weight"] == pytest.approx(moved[1.0]["3.weight"])


def test_a_run_from_scratch_has_one_rate():
    optimizer = make_optimizer(network().parameters(), Budget())
    set_rate(optimizer, 0.3)
    assert [group["lr"] for group in optimizer.param_groups] == [0.3, 0.3]


def test_what_is_frozen_keeps_weights_and_statistics_while_the_classifier_learns():
    model = network()
    freeze(model, loaded_parameters(model, fresh=["3.weight", "3.bias"]))
    optimizer = make_optimizer(model.parameters(), Budget())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    step(model, optimizer)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"3.weight", "3.bias"}


@pytest.mark.parametrize(("fresh", "what"), [((), "everything"), (None, "nothing")])
def test_freezing_nothing_or_everything_is_refused(fresh, what):
    model = network()
    with pytest.raises(ValueError, match=what):
        freeze(model, () if fresh is None else loaded_parameters(model, fresh))


def test_the_user_is_told_both_rates():
    model = network()
    (line,) = describe(model, loaded_parameters(model, ["3.weight", "3.bias"]), Budget(learning_rate=0.1))
    assert "71%" in line
    assert "rate of 0.01; what is new at 0.1" in line
    assert describe(model, (), Budget()) == []


@pytest.mark.parametrize("frozen", [False, True])
def test_commands_fine_tune_what_they_load(frozen, tmp_path, capsys):
    net = f"{ROOT}/tests/nets.py:big"
    before = build_classifier(net, ["cat", "dog", "emu"]).module.state_dict()
    torch.save(before, tmp_path / "three.pth")
    data = ("--data", "digits", "--size", "8", "--augment", "none", "--images", "64", "--batch-size", "32")
    start = [*data, "--workers", "0", "--max-steps", "2", *(["--freeze"] if frozen else [])]
    said = "94% of the parameters start from trained weights" + (
        " and stay as they are" if frozen else ", and learn at a rate of 0.00354; what is new at 0.0354"
    )
    run = tmp_path / "run"
    main(["train", "classification", *start, "--model", net, "--weights", f"{tmp_path}/three.pth", "--out", str(run)])
    assert said in capsys.readouterr().out
    after = weights(run)
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert (changed == {"3.3.weight", "3.3.bias"}) == frozen
    if frozen:  # a frozen feature can follow nothing
        return
    pair = ["--teacher", str(run), "--no-teacher-check", "--student", net, "--student-weights", f"{tmp_path}/three.pth"]
    main(["distill", "classification", *start, *pair, "--dry-run", "--out", str(tmp_path / "other")])
    assert said in capsys.readouterr().out
