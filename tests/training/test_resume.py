"""What a run folder goes through: other arguments, two processes, failures, signals, lost workers."""

import dataclasses
import json
import multiprocessing
import os
import signal
import sys

import pytest
import torch

from limbeck.models.run_folder import RunFolder
from limbeck.tasks.classification import recipe as classification
from limbeck.tasks.classification.recipe import Data
from limbeck.training.checkpoint import save_checkpoint
from limbeck.training.loaders import handed_over, telling_of_workers
from limbeck.training.lock import held
from limbeck.training.loop import train
from limbeck.training.options import RunOptions
from limbeck.training.step import TrainStep
from tests.runs import equal, log_of, weights
from tests.training.test_loop import NETS, budget, stop_after

DATA = Data("digits", images=128, augment="none")
SHORT = {"epochs": 2, "checkpoint_every": 100}  # 4 steps each


def alone(data=DATA, model="small", **changes):
    return classification.train(data, f"{NETS}:{model}", size=8, budget=budget(**{**SHORT, **changes}))


def test_a_run_is_extended_by_more_epochs_and_says_so(tmp_path, capsys):
    train(alone(), tmp_path)
    train(alone(epochs=3), tmp_path, RunOptions(resume=True))
    assert "extended from 8 to 12 steps: from step 9 on the learning rate is" in capsys.readouterr().out
    assert [entry["epoch"] for entry in log_of(tmp_path, "val")] == [1, 2, 3]


def test_a_finished_run_that_is_extended_is_finished_again_only_at_its_new_end(tmp_path, monkeypatch):
    for run in ("broken", "unbroken"):
        train(alone(), tmp_path / run)
    folder = RunFolder(tmp_path / "broken")
    stop_after(monkeypatch, 10, signal.SIGINT)
    assert train(alone(epochs=3), folder.path, RunOptions(resume=True)).status
    assert not folder.is_finished()
    with pytest.raises(ValueError, match="is not finished, so it has no last student"):
        folder.student_of("last")
    monkeypatch.undo()
    for run in ("broken", "unbroken"):
        assert train(alone(epochs=3), tmp_path / run, RunOptions(resume=True)).finished
    assert equal(weights(tmp_path / "broken"), weights(tmp_path / "unbroken"))


def test_a_finished_run_that_is_resumed_for_nothing_more_stays_finished(tmp_path, monkeypatch):
    train(alone(epochs=1), tmp_path)
    monkeypatch.setattr("limbeck.training.training.Training.finish", lambda _: 1 / 0)  # as if killed before
    with pytest.raises(ZeroDivisionError):
        train(alone(epochs=1), tmp_path, RunOptions(resume=True))
    assert RunFolder(tmp_path).is_finished()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"batch_size": 16}, "batch_size (was 32, is 16)"),
        ({"learning_rate": 0.1}, "learning_rate (was 0.05, is 0.1)"),
        ({"seed": 1}, "seed (was 0, is 1)"),
        ({"data": dataclasses.replace(DATA, images=64)}, "training images (was 128, is 64)"),
        ({"model": "big"}, "tensors ("),
        ({"epochs": 1}, "was started for 8 steps; it can be resumed for more, not for 4"),
    ],
)
def test_a_run_is_not_resumed_as_another(finished, changes, named):
    before = (finished / "metrics.jsonl").read_bytes()
    with pytest.raises(ValueError, match=r"was started (with other|for 8 steps)") as error:
        train(alone(**changes), finished, RunOptions(resume=True))
    assert named in str(error.value)
    assert (finished / "metrics.jsonl").read_bytes() == before


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = tmp_path_factory.mktemp("finished") / "run"
    train(alone(), run)
    return run


def test_a_finished_run_that_is_resumed_says_that_it_is(finished, capsys):
    before = weights(finished)
    assert train(alone(workers=2), finished, RunOptions(resume=True)).finished
    shown = capsys.readouterr().out
    assert "is finished already: 2 epochs, 8 steps" in shown
    assert "epoch 3" not in shown
    assert equal(before, weights(finished))


def test_the_lines_of_a_run_are_in_its_folder(finished):
    lines = (finished / "console.log").read_text()
    assert "128 training images" in lines
    assert "epoch 2: top1" in lines


def test_a_student_whose_checkpoints_are_gone_is_not_trained_over(tmp_path):
    train(alone(epochs=1), tmp_path)
    for path in (tmp_path / "checkpoints").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="has a student, but no checkpoint to go on from"):
        train(alone(epochs=1), tmp_path, RunOptions(resume=True))


def test_a_run_is_replaced_when_that_is_asked_for(tmp_path):
    train(alone(epochs=1), tmp_path, record={"seed": 0})
    train(alone(epochs=1, seed=1), tmp_path, RunOptions(overwrite=True), record={"seed": 1})
    assert len(log_of(tmp_path, "val")) == 1
    assert json.loads((tmp_path / "recipe.json").read_text()) == {"seed": 1}
    with pytest.raises(ValueError, match="pass one of them"):
        RunOptions(overwrite=True, resume=True)


def test_a_run_that_fails_before_its_first_step_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="fewer than one batch"):
        train(alone(batch_size=500), tmp_path / "runs" / "run", record={})
    assert not (tmp_path / "runs").exists()


def test_a_run_that_fails_beside_another_says_why_and_leaves_the_folder_of_both(tmp_path):
    def fail():
        with held(RunFolder(tmp_path / "runs" / "run"), print):
            (tmp_path / "runs" / "other").mkdir()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["other"]


def test_a_run_that_fails_at_its_first_step_is_started_again_by_the_corrected_command(tmp_path, monkeypatch):
    recipe = alone()
    monkeypatch.setattr(recipe.task, "truth", lambda batch: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(recipe, tmp_path, record={})
    assert train(alone(epochs=1), tmp_path).finished


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize("place", ["file", "file/run"])
def test_a_folder_that_cannot_be_made_is_refused_in_a_dry_run_too(tmp_path, dry_run, place):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match=r"file is a file; choose another --out"):
        train(alone(), tmp_path / place, RunOptions(dry_run=dry_run))


def test_a_dry_run_says_what_would_be_done_and_leaves_nothing(tmp_path, capsys):
    report = train(alone(), tmp_path / "run", RunOptions(dry_run=True))
    assert not report.finished
    shown = capsys.readouterr().out
    student = sum(parameter.numel() for parameter in alone().student.parameters())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    assert f"student: {student:,} parameters, trained on {device}" in shown
    assert "for 8 steps of 32 images (4 an epoch) by sgd, learning rate 0.05" in shown
    assert not (tmp_path / "run").exists()


def test_a_model_with_outputs_for_too_few_classes_is_refused_before_training(tmp_path):
    recipe = dataclasses.replace(alone(), student=torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 4)))
    with pytest.raises(
        ValueError, match=r"no loss comes of what Sequential gives .* has it an output for each class\?"
    ):
        train(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("changes", [{"batch_size": 1}, {"batch_size": 2, "accumulate": 2}])
@pytest.mark.parametrize("seen", ["one position", "more", "frozen"])
def test_a_batch_norm_that_would_see_a_single_value_is_refused_before_training(tmp_path, changes, seen):
    norm = torch.nn.BatchNorm2d(4)
    norm.requires_grad_(seen != "frozen")
    pool = torch.nn.AdaptiveAvgPool2d(2 if seen == "more" else 1)
    layers = [torch.nn.Conv2d(3, 4, 3), pool, norm, torch.nn.Flatten(), torch.nn.LazyLinear(10)]
    student = torch.nn.Sequential(*layers)
    student(torch.zeros(2, 3, 8, 8))
    recipe = dataclasses.replace(alone(**changes), student=student)
    if seen == "one position":
        with pytest.raises(ValueError, match=r"the batch norm 2 of Sequential would see .* take a larger --batch-size"):
            train(recipe, tmp_path / "run", RunOptions(dry_run=True))
    else:
        train(recipe, tmp_path / "run", RunOptions(dry_run=True))
        assert norm.training
    assert not norm._forward_pre_hooks


def hold(folder, ready, end):
    with held(RunFolder(folder), print):
        ready.set()
        end.wait(60)


def test_a_folder_in_use_is_refused_with_who_holds_it_and_a_killed_holder_does_not_block(tmp_path):
    context = multiprocessing.get_context("forkserver")
    ready, end = context.Event(), context.Event()
    process = context.Process(target=hold, args=(tmp_path, ready, end))
    process.start()
    assert ready.wait(60)
    with pytest.raises(BlockingIOError, match=rf"is in use by process {process.pid} on .* since 20"):
        train(alone(epochs=1), tmp_path)
    process.kill()
    process.join()
    assert (tmp_path / ".lock").is_file()
    assert train(alone(epochs=1), tmp_path).finished


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_and_gives_its_status(tmp_path, monkeypatch, number):
    stop_after(monkeypatch, 3, number)
    report = train(alone(), tmp_path)
    assert (report.finished, report.status) == (False, 128 + number)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000003.ckpt"]


class Log:
    """What programs put in the place of sys.stdout, to write to a file too."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self):
        pass


def test_a_run_without_a_standard_output_is_saved_at_a_hangup_and_goes_on_with_that_of_a_program(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        stop_after(patch, 3, signal.SIGHUP)
        assert train(alone(), tmp_path).status == 128 + signal.SIGHUP
    log = Log()
    monkeypatch.setattr(sys, "stdout", log)
    assert train(alone(), tmp_path, RunOptions(resume=True)).finished
    assert "resumed from" in log.text


def test_a_second_signal_ends_at_once(tmp_path, monkeypatch):
    stop_after(monkeypatch, 3, signal.SIGINT, times=2)
    with pytest.raises(KeyboardInterrupt):
        train(alone(), tmp_path)
    assert not list(tmp_path.glob("checkpoints/*"))


def test_an_ignored_hangup_stays_ignored(tmp_path, monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        stop_after(monkeypatch, 3, signal.SIGHUP)
        assert train(alone(epochs=1), tmp_path).finished
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_run_stops_when_its_hours_are_over_and_goes_on(tmp_path):
    report = train(alone(), tmp_path, RunOptions(max_hours=1e-9))
    assert (report.finished, report.status) == (False, 124)
    assert train(alone(), tmp_path, RunOptions(resume=True)).finished


class Broken(torch.utils.data.Dataset):
    """The images of another dataset, one of which does harm."""

    def __init__(self, data, harm):
        self.data, self.harm = data, harm

    def __len__(self):
        return len(self.data)

    def __getitem__(self, key):
        if (key[1] if isinstance(key, tuple) else key) == 70:
            self.harm()
        return self.data[key]


def unreadable():
    raise ValueError("images/70.jpg is cut short")


def killed():
    if torch.utils.data.get_worker_info():
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_bad_image_met_by_a_worker_is_told_in_its_own_words(tmp_path):
    recipe = alone(workers=1)
    with pytest.raises(ValueError, match=r"^images/70\.jpg is cut short$"):
        train(dataclasses.replace(recipe, train_data=Broken(recipe.train_data, unreadable)), tmp_path)


# By torch, which opens files to see whether there are enough, and is told of the killed process while it does.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("part", ["train_data", "val_data"])
def test_a_killed_worker_is_told_in_a_sentence(part, tmp_path):
    recipe = alone(workers=1)
    with pytest.raises(ChildProcessError, match=r"a loader process was killed .*fewer --workers"):
        train(dataclasses.replace(recipe, **{part: Broken(getattr(recipe, part), killed)}), tmp_path)


@pytest.mark.parametrize("error", [ConnectionResetError(104, "Connection reset by peer"), EOFError()])
def test_a_worker_killed_while_it_hands_a_batch_over_is_told_as_others(error):
    def broken():
        yield "a batch"
        raise error

    loader = handed_over(broken())
    assert next(loader) == "a batch"
    with pytest.raises(ChildProcessError, match="a loader process was killed"), telling_of_workers():
        next(loader)


def test_training_ends_when_patience_does(tmp_path, monkeypatch):
    recipe = alone(epochs=9, patience=2)
    values = iter([0.1, 0.3, 0.2, 0.3, 0.5])
    monkeypatch.setattr(recipe.task, "evaluate", lambda model, loader: {"top1": next(values)})
    report = train(recipe, tmp_path)
    assert report.finished
    assert report.best == {"top1": 0.3}
    assert len(log_of(tmp_path, "val")) == 4
    assert (tmp_path / "student-last.safetensors").is_file()


def test_training_ends_after_the_steps_that_are_allowed_in_mid_epoch(tmp_path):
    assert train(alone(max_steps=6), tmp_path).finished
    assert log_of(tmp_path, "val")[-1]["step"] == 6
    assert train(alone(max_steps=7), tmp_path, RunOptions(resume=True)).finished
    assert [entry["step"] for entry in log_of(tmp_path, "val")] == [4, 7]


def test_checkpoints_are_kept_for_good_at_every_second_epoch(tmp_path):
    train(alone(epochs=5), tmp_path, RunOptions(keep_every=2))
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["epoch-00002.ckpt", "epoch-00004.ckpt", "step-00000016.ckpt", "step-00000020.ckpt"]


@pytest.mark.parametrize("times", [1, 99])
def test_a_loss_that_is_not_finite_goes_back_with_half_the_rate_if_that_is_asked_for(
    tmp_path, monkeypatch, capsys, times
):
    recipe = alone(on_nan="rewind", epochs=3, schedule="constant", warmup_epochs=0)
    plain, calls = recipe.task.loss, []

    def loss(output, batch):
        calls.append(len(calls))
        is_bad = calls[-1] == 6 if times == 1 else calls[-1] >= 6
        return plain(output, batch) * (float("nan") if is_bad else 1)

    monkeypatch.setattr(recipe.task, "loss", loss)
    monkeypatch.setattr(TrainStep, "cost", lambda *_: {})  # it calls the loss too
    if times > 1:
        with pytest.raises(FloatingPointError, match=r"last good checkpoint.* or another precision$"):
            train(recipe, tmp_path)
        return
    assert train(recipe, tmp_path).finished
    assert "is nan at step 6; back to step 4, with 0.5 of the learning rate from here on" in capsys.readouterr().out
    rates = {entry["step"]: entry["learning_rate"] for entry in log_of(tmp_path, "train")}
    assert rates == {4: 0.05, 8: 0.025, 12: 0.025}


def test_a_device_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    missing = "cuda:9" if torch.cuda.is_available() else "cuda"
    with pytest.raises(ValueError, match=rf"there is no device '{missing}' here; there are cpu"):
        train(alone(), tmp_path / "run", RunOptions(device=missing))
    assert train(alone(epochs=1), tmp_path / "run", RunOptions(device="cpu")).finished


def test_batch_norms_of_several_gpus_are_refused_without_a_gpu(tmp_path):
    with pytest.raises(ValueError, match="SyncBatchNorm does not run on cpu"):
        train(alone(sync_norms=True), tmp_path, RunOptions(device="cpu"))


def test_a_checkpoint_of_something_else_is_refused_by_name(finished, tmp_path):
    path = save_checkpoint(tmp_path / "checkpoints", 3, {"weights": torch.zeros(2)})
    with pytest.raises(ValueError, match=rf"{path} is no checkpoint of this run"):
        train(alone(), tmp_path, RunOptions(resume=True))


def test_a_restarted_process_goes_on_without_being_told(tmp_path, monkeypatch, capsys):
    stop_after(monkeypatch, 3, signal.SIGTERM)
    train(alone(), tmp_path)
    monkeypatch.undo()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert train(alone(), tmp_path).finished
    assert "resumed from" in capsys.readouterr().out
