import dataclasses
import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from limbeck import Match
from limbeck.tasks.classification import recipe as classification
from limbeck.tasks.classification.recipe import Data
from limbeck.tasks.options import MatchOptions, TeacherOptions
from limbeck.training.loop import train
from limbeck.training.options import RunOptions
from limbeck.training.recipe import Budget
from limbeck.training.step import TrainStep

NETS = Path(__file__).parents[1] / "nets.py"
DATA = Data("digits", images=320, augment="shift")
BUDGET = Budget(epochs=3, batch_size=32, learning_rate=0.05, workers=0, checkpoint_every=3)


def budget(**changes):
    return Budget(**{**vars(BUDGET), **changes})


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A run folder with a teacher that has learnt the digits."""
    run = tmp_path_factory.mktemp("runs") / "teacher"
    report = train(
        classification.train(Data("digits", augment="shift"), f"{NETS}:big", size=8, budget=budget(epochs=6)), run
    )
    assert report.best["top1"] > 0.8
    return str(run)


def distilled(teacher, **changes):
    options = {"data": DATA, "student": f"{NETS}:small", "size": 8, "teacher_check": False, **changes}
    matching = MatchOptions(**{name: (options.pop(name),) for name in ("method", "weight") if name in options})
    teacher_options = TeacherOptions(teacher_check=options.pop("teacher_check"))
    return classification.distill(
        teacher=teacher, matching=matching, teacher_options=teacher_options, **{"budget": BUDGET, **options}
    )


def weights(run, name="student-last.safetensors"):
    return load_file(run / name)


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_a_distilled_run_learns_and_leaves_a_complete_folder(teacher, tmp_path):
    report = train(distilled(teacher, teacher_check=True, budget=budget(epochs=12)), tmp_path)
    log = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [entry["ChannelTransform:2"] for entry in log if entry["kind"] == "train"]
    assert report.finished
    assert report.teacher["top1"] > 0.8
    assert report.best["top1"] > 0.3
    assert 0 < report.best["agreement"] <= 1
    assert report.weights["ChannelTransform:2"] > 0
    assert losses[-1] < max(losses) / 1.5
    assert len([entry for entry in log if entry["kind"] == "val"]) == 12
    state = weights(tmp_path, "student.safetensors")
    assert not any(key.startswith(("matches", "teacher")) for key in state)
    from tests.nets import small

    small(num_classes=10).load_state_dict(state)  # the student alone, without limbeck


def test_unlabelled_images_bear_the_distillation_loss_alone(teacher, tmp_path):
    data = Data("digits", images=320, labels=20, augment="shift")
    recipe = distilled(teacher, data=data)
    labels = torch.tensor([recipe.train_data[0, index]["label"] for index in range(320)])
    assert (labels >= 0).sum() == 20
    report = train(recipe, tmp_path)
    assert report.finished
    alone = classification.train(data, f"{NETS}:small", size=8, budget=budget(batch_size=10))
    assert len(alone.train_data) == 20


def test_the_same_seed_gives_the_same_weights_for_any_number_of_loader_workers(teacher, tmp_path):
    for workers in (0, 2):
        train(distilled(teacher, budget=budget(epochs=2, workers=workers)), tmp_path / str(workers))
    train(distilled(teacher, budget=budget(epochs=2, seed=1)), tmp_path / "other")
    assert equal(weights(tmp_path / "0"), weights(tmp_path / "2"))
    assert not equal(weights(tmp_path / "0"), weights(tmp_path / "other"))


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "adamw", "learning_rate": 1e-3, "ema": 0.9, "clip": 1.0},
        {"precision": "bf16", "schedule": "steps", "warmup_epochs": 0.5, "accumulate": 2, "evaluate_every": 2},
    ],
)
def test_a_run_stopped_in_mid_epoch_and_resumed_is_bitwise_the_unbroken_one(teacher, tmp_path, monkeypatch, changes):
    recipe = {"budget": budget(**changes)}
    train(distilled(teacher, **recipe), tmp_path / "unbroken")
    for stop_at in (4, 13, 20, 27):  # the weight is still being measured at step 4
        stop_after(monkeypatch, stop_at)
        report = train(distilled(teacher, **recipe), tmp_path / "broken", RunOptions(resume=True))
        assert not report.finished
        monkeypatch.undo()
    train(distilled(teacher, **recipe), tmp_path / "broken", RunOptions(resume=True))
    for name in ("student.safetensors", "student-last.safetensors"):
        assert equal(weights(tmp_path / "unbroken", name), weights(tmp_path / "broken", name))
    kinds = [
        [(entry["kind"], entry["epoch"]) for entry in entries if entry["kind"] == "val"]
        for entries in (
            [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
            for run in ("unbroken", "broken")
        )
    ]
    assert kinds[0] == kinds[1]


def stop_after(monkeypatch, step, number=signal.SIGTERM, times=1):
    """Send this process a signal once a step is done, as a scheduler would."""
    plain = TrainStep.__call__

    def train_step(self, state, batches):
        losses = plain(self, state, batches)
        if state.step == step:
            for _ in range(times):
                os.kill(os.getpid(), number)
        return losses

    monkeypatch.setattr(TrainStep, "__call__", train_step)


def run_once(teacher, run, workers):
    """In a process of its own, to be killed."""
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # of the loader's workers, as in a run from the command line
    train(distilled(teacher, budget=budget(epochs=8, workers=workers)), run, RunOptions(resume=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_killed_ten_times_ends_bitwise_as_an_unbroken_one(teacher, tmp_path, workers):
    context = multiprocessing.get_context("forkserver")  # imports torch once, so that a start takes no seconds
    context.set_forkserver_preload(["limbeck.commands.run", "timm", __name__])
    chance = random.Random(workers)
    targets = sorted(chance.sample(range(1, 70), 10))  # of 80 steps
    for target in targets:
        process = context.Process(target=run_once, args=(teacher, tmp_path / "broken", workers))
        process.start()
        while steps_saved(tmp_path / "broken") < target and process.is_alive():
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.03))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    for run in ("broken", "unbroken"):
        process = context.Process(target=run_once, args=(teacher, tmp_path / run, workers))
        process.start()
        process.join()
        assert process.exitcode == 0
    for name in ("student.safetensors", "student-last.safetensors"):
        assert equal(weights(tmp_path / "unbroken", name), weights(tmp_path / "broken", name))


def steps_saved(run):
    return max((int(path.stem[5:]) for path in (run / "checkpoints").glob("step-*.ckpt")), default=0)


def test_a_truncated_newest_checkpoint_is_passed_over_with_a_line(teacher, tmp_path, capsys):
    train(distilled(teacher), tmp_path)
    expected = weights(tmp_path)
    newest = max((tmp_path / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:-100])
    train(distilled(teacher), tmp_path, RunOptions(resume=True))
    assert "is damaged (its checksum does not fit); using the one before" in capsys.readouterr().out
    assert equal(expected, weights(tmp_path))


def test_a_loss_that_is_not_finite_stops_with_step_term_and_last_good_checkpoint(teacher, tmp_path, monkeypatch):
    recipe = distilled(teacher)
    plain = recipe.task.loss

    def loss(output, batch):
        loss.calls += 1
        return plain(output, batch) * (float("nan") if loss.calls == 10 else 1)  # the first call is a trial

    loss.calls = 0
    monkeypatch.setattr(recipe.task, "loss", loss)
    with pytest.raises(FloatingPointError, match=r"loss task is nan at step 9; last good checkpoint: .*step-00000006"):
        train(recipe, tmp_path)
    assert max(path.name for path in (tmp_path / "checkpoints").iterdir()) == "step-00000006.ckpt"


def test_a_folder_with_a_run_is_not_overwritten(teacher, tmp_path):
    train(distilled(teacher, budget=budget(epochs=1)), tmp_path)
    with pytest.raises(ValueError, match="holds a run already; go on with --resume"):
        train(distilled(teacher), tmp_path)


def test_an_untrained_teacher_is_refused(tmp_path):
    recipe = classification.distill(
        DATA, teacher=f"{NETS}:big", student=f"{NETS}:small", size=8, teacher_size=8, budget=BUDGET
    )
    with pytest.raises(ValueError, match="the teacher's top-1 is"):
        train(recipe, tmp_path)


def test_a_batch_larger_than_the_data_is_refused(tmp_path):
    recipe = classification.train(DATA, f"{NETS}:small", size=8, budget=budget(batch_size=400))
    with pytest.raises(ValueError, match="320 training images are fewer than one batch of 400"):
        train(recipe, tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"budget": budget(epochs=1, batch_size=40)}, True),  # 8 batches, over which auto settles
        ({"budget": budget(epochs=1, batch_size=32)}, False),
        ({"budget": budget(epochs=1, batch_size=80, accumulate=2)}, True),
        ({"budget": budget(epochs=1, batch_size=64, accumulate=2)}, False),
        ({"budget": budget(epochs=1, batch_size=40), "weight": 0.1}, False),
    ],
)
def test_a_run_that_ends_before_its_weight_has_settled_says_so(teacher, tmp_path, capsys, changes, said):
    train(distilled(teacher, **changes), tmp_path)
    shown = " ".join(capsys.readouterr().out.split())
    assert ("the weight auto settles over 8 batches, and this run has 8; train for longer" in shown) == said


def test_kd_between_the_outputs_needs_no_layers(teacher, tmp_path):
    report = train(distilled(teacher, method="KD", weight=0.9), tmp_path)
    assert report.weights == {"KD:output": 0.9}


def test_a_criterion_that_is_only_looked_at_needs_no_gradient(teacher, tmp_path):
    def distance(student, teacher):
        return (student.detach() - teacher).abs().mean()

    recipe = distilled(teacher, budget=budget(epochs=1))
    recipe = dataclasses.replace(recipe, matches=[*recipe.matches, Match("", "", distance, weight=0.0)])
    assert train(recipe, tmp_path).weights["distance:output"] == 0


def test_a_weight_that_decays_follows_the_progress_also_after_a_resume(teacher, tmp_path, monkeypatch):
    decay = {"method": "ChannelDistillation", "weight": "EarlyDecay:weight=4,factor=0.5,at=(0.5, 0.8)"}
    train(distilled(teacher, **decay), tmp_path / "whole")
    log = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert [entry["ChannelDistillation:2"] for entry in log if entry["kind"] == "weights"] == [4, 2, 1]
    stop_after(monkeypatch, 22)
    train(distilled(teacher, **decay), tmp_path / "part")
    monkeypatch.undo()
    train(distilled(teacher, **decay), tmp_path / "part", RunOptions(resume=True))
    assert equal(weights(tmp_path / "whole"), weights(tmp_path / "part"))


@pytest.mark.parametrize("method", ["MGD", "OFD", "ReviewKD"])  # with a mask, a measured margin, batch norms
def test_a_method_with_a_state_of_its_own_is_resumed_bitwise(teacher, tmp_path, monkeypatch, method):
    options = {"method": method, "budget": budget(epochs=2, clip=1.0)}
    train(distilled(teacher, **options), tmp_path / "whole")
    stop_after(monkeypatch, 13)
    assert not train(distilled(teacher, **options), tmp_path / "part").finished
    monkeypatch.undo()
    train(distilled(teacher, **options), tmp_path / "part", RunOptions(resume=True))
    assert equal(weights(tmp_path / "whole"), weights(tmp_path / "part"))


def test_a_method_of_labelled_images_is_looked_over_on_some_that_are(teacher, tmp_path):
    data = Data("digits", images=320, labels=20, augment="shift")
    assert train(distilled(teacher, data=data, method="DKD", budget=budget(epochs=1)), tmp_path).finished


def test_labels_that_are_none_are_refused(teacher):
    with pytest.raises(ValueError, match="labels is 0; it must be 1 or more"):
        distilled(teacher, data=Data("digits", images=320, labels=0))


@pytest.mark.parametrize("changes", [{"epochs": 0}, {"learning_rate": 0.0}, {"ema": 1.0}, {"batch_size": 0}])
def test_an_impossible_budget_is_refused_by_name(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        budget(**changes)


def test_tensorboard_is_a_tracker(teacher, tmp_path):
    train(distilled(teacher, budget=budget(epochs=1)), tmp_path, RunOptions(tracker="tensorboard"))
    assert list(tmp_path.rglob("events.out.tfevents*"))
