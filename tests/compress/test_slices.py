import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import limbeck
from limbeck.compress.slices import share_out, slices_of
from limbeck.compress.training import SliceTraining, relative_error
from tests.compress.nets import RoIHeads, images, residual_net

DATA = [images(16, seed=seed) for seed in range(4)]


def compressed(model, ratio=0.6, **options):
    return limbeck.factorise(model, ratio=ratio, example=DATA[0], data=DATA, **options)


def error(model, made):
    with torch.no_grad():
        return float(relative_error(made.model.eval()(DATA[0]), model(DATA[0])))


@pytest.mark.parametrize("inputs", ["original", "compressed"])
@pytest.mark.parametrize(("slices", "left"), [("blocks", 0.6), ("layers", 0.9)])
def test_slices_learn_what_the_original_gives(slices, left, inputs):
    model = residual_net()
    made = compressed(model, start="weights")
    before = error(model, made)
    first = limbeck.distill_slices(model, made, DATA, slices=slices, inputs=inputs, epochs=1)
    last = limbeck.distill_slices(model, made, DATA, slices=slices, inputs=inputs, epochs=20, patience=None)
    assert all(last[path] < first[path] for path in first)
    assert error(model, made) < left * before


def test_data_that_one_epoch_uses_up_are_refused():
    model = residual_net()
    with pytest.raises(ValueError, match=r"data is a list_iterator, which can be gone over once"):
        limbeck.distill_slices(model, compressed(model), iter(DATA), epochs=2)


@pytest.mark.parametrize("inputs", ["original", "compressed"])
def test_a_gradient_touches_its_own_slice_alone(inputs):
    model = residual_net()
    made = compressed(model)
    before = {name: tensor.clone() for name, tensor in made.model.state_dict().items()}
    originals = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    training = SliceTraining(model, made.model, ["1.1"], inputs=inputs)
    training.step(DATA[0], 0.0)
    changed = {name for name, tensor in made.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert all(name.startswith("1.1.") for name in changed)
    assert all(parameter.grad is None for name, parameter in made.model.named_parameters() if "1.1." not in name)
    assert all(torch.equal(tensor, originals[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_each_slice_learns_as_if_it_were_alone():
    model = residual_net()
    together, alone = compressed(model), compressed(model)
    paths = ["1.0", "1.1", "4"]
    trainings = [SliceTraining(model, together.model, paths)]
    trainings += [SliceTraining(model, alone.model, [path]) for path in reversed(paths)]
    for training in trainings:
        for batch in DATA:
            training.step(batch, 0.5)
    both = together.model.state_dict(), alone.model.state_dict()
    assert all(torch.equal(both[0][name], both[1][name]) for name in both[0])


def test_the_slices_of_the_compressed_network_are_fed_by_it():
    model = residual_net()
    made = compressed(model)
    with torch.no_grad():
        made.model[0][0].weight.zero_()  # so that the first block gets zeros
        made.model[0][1].bias.zero_()
        made.model[0][1].running_mean.zero_()
    taken = []
    made.model[1][0].register_forward_pre_hook(lambda _, args: taken.append(args[0]))
    SliceTraining(model, made.model, ["1.0"], inputs="compressed").step(DATA[0], 0.0)
    assert len(taken) == 1
    assert not taken[0].any()


def test_parts_after_a_selection_follow_what_the_original_selects():
    torch.manual_seed(0)
    model = nn.Sequential(*residual_net()[:2], RoIHeads(16))
    made, apart = (compressed(model, 0.5, allocation="uniform", start=start) for start in ("sequence", "data"))
    assert {row.path for row in made.rows} >= {"1.0.body.0", "2.head.0", "2.head.2"}
    assert len(model(DATA[0])) != len(made.model(DATA[0]))
    for one, other in zip(made.model[2].parameters(), apart.model[2].parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-4)
    first = limbeck.distill_slices(model, made, DATA, inputs="compressed", epochs=1)
    last = limbeck.distill_slices(model, made, DATA, inputs="compressed", epochs=10)
    assert {path[0] for path in first} == {"0", "1", "2"}
    assert all(last[path] < first[path] for path in first)


def test_a_slice_that_improves_no_more_stops_by_itself():
    model = residual_net()
    made = compressed(model)
    training = SliceTraining(model, made.model, ["1.0", "1.1"], patience=2)
    training.trainers["1.0"].best = 0.0  # nothing is better
    for _ in range(2):
        training.step(DATA[0], 0.5)
        training.finish_epoch()
    stopped = {name: tensor.clone() for name, tensor in made.model[1][0].state_dict().items()}
    others = made.model[1][1].body[0][0].weight.clone()
    training.step(DATA[0], 0.5)
    assert training.trainers["1.0"].is_done
    assert not training.is_done
    assert all(torch.equal(tensor, stopped[name]) for name, tensor in made.model[1][0].state_dict().items())
    assert not torch.equal(made.model[1][1].body[0][0].weight, others)


def test_training_goes_on_from_its_state_as_if_it_had_not_stopped():
    model = residual_net()
    unbroken, broken = compressed(model), compressed(model)
    first = SliceTraining(model, unbroken.model, ["1.0", "1.1"], inputs="compressed")
    for step, batch in enumerate(DATA):
        first.step(batch, step / 4)
    before = SliceTraining(model, broken.model, ["1.0", "1.1"], inputs="compressed")
    for step in range(2):
        before.step(DATA[step], step / 4)
    again = compressed(model)
    after = SliceTraining(model, again.model, ["1.0", "1.1"], inputs="compressed")
    after.load_state_dict(before.state_dict())
    for step in range(2, 4):
        after.step(DATA[step], step / 4)
    pairs = zip(unbroken.model.state_dict().values(), again.model.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_blocks_are_found_in_the_networks_of_several_libraries():
    import timm
    from torchvision.models import mobilenet_v2

    for model, expected in [
        (timm.create_model("resnet18"), ["conv1", "layer1.0", "layer1.1", "layer4.1", "fc"]),
        (timm.create_model("vit_tiny_patch16_224"), ["blocks.0.attn", "blocks.0.mlp", "head"]),
        (timm.create_model("efficientnet_lite0"), ["conv_stem", "blocks.0.0", "blocks.6.0", "classifier"]),
        (mobilenet_v2(), ["features.1", "features.17"]),
    ]:
        layers = [path for path, module in model.named_modules() if type(module) in (nn.Conv2d, nn.Linear)]
        found = slices_of(model, layers)
        assert set(expected) <= set(found)
        assert all(sum(f"{layer}.".startswith(f"{path}.") for path in found) == 1 for layer in layers)


def test_mistakes_in_slices_are_told():
    model = residual_net()
    made = compressed(model)
    with pytest.raises(ValueError, match=r"the slice 1\.0\.body lies within the slice 1\.0"):
        limbeck.distill_slices(model, made, DATA, slices=["1.0", "1.0.body"])
    with pytest.raises(ValueError, match="the slice 2 holds no layer"):
        limbeck.distill_slices(model, made, DATA, slices=["2"])
    with pytest.raises(ValueError, match="slices are blocks or layers, not 'stages'"):
        limbeck.distill_slices(model, made, DATA, slices="stages")


def test_slices_fed_by_the_compressed_network_need_one_process(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    model = residual_net()
    with pytest.raises(ValueError, match="train them on one process"):
        limbeck.distill_slices(model, compressed(model), DATA, inputs="compressed")


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_every_slice_is_given_to_one_process(processes):
    costs = [3.0, 1.0, 4.0, 1.0, 5.0]
    shares = share_out(costs, processes)
    assert [index for share in shares for index in share] == [0, 1, 2, 3, 4]
    assert len(shares) == processes
    assert processes == 1 or max(sum(costs[index] for index in share) for share in shares) < sum(costs)


SCRIPT = """
import os, sys, torch
from limbeck import distill_slices, factorise
from tests.compress.nets import images, residual_net
model = residual_net()
data = [images(16, seed=seed) for seed in range(4)]
made = factorise(model, ratio=0.6, example=data[0], data=data)
errors = distill_slices(model, made, data, epochs=3, patience=1)
cached = factorise(model, ratio=0.6, example=data[0], data=data)
cached_errors = distill_slices(model, cached, data, epochs=3, patience=1, cache=sys.argv[1] + "cache")
found = [(made.model.state_dict(), errors), (cached.model.state_dict(), cached_errors)]
torch.save(found, sys.argv[1] + os.environ["RANK"])
"""


def test_two_processes_give_what_one_gives(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(
        [*words, f"{tmp_path}/"], env=environment, capture_output=True, text=True, timeout=150, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    model = residual_net()
    made = compressed(model)
    errors = limbeck.distill_slices(model, made, DATA, epochs=3, patience=1)
    for rank in "01":
        for state, theirs in torch.load(tmp_path / rank):
            assert all(torch.equal(tensor, state[name]) for name, tensor in made.model.state_dict().items())
            assert theirs == errors


def test_slices_learn_from_a_cache_what_they_learn_without_it(tmp_path):
    model, said, passes = residual_net(), [], []
    runs, caches = compressed(model), compressed(model)
    expected = limbeck.distill_slices(model, runs, DATA, epochs=3)
    model[4].register_forward_hook(lambda *_: passes.append("original"))
    options = {"epochs": 3, "slices": ["1.0", "4"], "cache": tmp_path / "cache", "say": said.append}
    errors = limbeck.distill_slices(model, caches, DATA, **options)
    assert errors == {path: expected[path] for path in ("1.0", "4")}
    for path in errors:
        pairs = zip(*(each.model.get_submodule(path).parameters() for each in (runs, caches)), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)
    assert len(passes) == len(DATA) + 3  # not once an epoch: to know costs and size, and to renew norms
    assert "cache takes 0.00" in said[0]
    assert not (tmp_path / "cache").exists()


def test_a_cache_needs_room_and_inputs_that_stay(tmp_path, monkeypatch):
    model = residual_net()
    made = compressed(model)
    with pytest.raises(ValueError, match="is not empty"):
        limbeck.distill_slices(model, made, DATA, cache=Path(__file__).parent)
    with pytest.raises(ValueError, match="on one process, uncached"):
        limbeck.distill_slices(model, made, DATA, inputs="compressed", cache=tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(ValueError, match=r"activations take .* GB, but .* has 1e-06 GB left"):
        limbeck.distill_slices(model, made, DATA, cache=tmp_path / "full")


def test_a_language_model_is_compressed_in_three_lines():
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(n_layer=2, n_embd=32, n_head=2, vocab_size=50, n_positions=16, bos_token_id=0, eos_token_id=0)
    model = GPT2LMHeadModel(config).eval()
    data = [{"input_ids": torch.randint(50, (8, 16))} for _ in range(2)]
    made = limbeck.factorise(model, ratio=0.3, example=data[0], data=data)
    first = limbeck.distill_slices(model, made, data)
    last = limbeck.distill_slices(model, made, data, epochs=10)
    assert "tied" in made.whole["lm_head"]
    assert all(f"transformer.h.{block}.mlp" in first for block in (0, 1))
    assert sum(last.values()) < sum(first.values())
    assert made.model(**data[0]).logits.shape == (8, 16, 50)
