"""Two processes do what one does, and so does a step in several parts."""

import json
import os
import subprocess
import sys
import time
from math import exp
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor

from limbeck.cli import main as limbeck
from limbeck.core.auto_weight import RATE, RATIO
from tests.places import ROOT

MODELS = """
from torch import nn


def student(num_classes):
    return network(8, num_classes)


def teacher(num_classes):
    return network(32, num_classes)


def network(width, num_classes):  # without batch norm, whose statistics are of the images of one process
    return nn.Sequential(
        nn.Conv2d(3, width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * width * 4 * 4, num_classes),
    )
"""
BUDGET = ("--data", "digits", "--augment", "none", "--size", "8", "--batch-size", "32", "--clip", "1", "--workers", "0")


def torchrun(*arguments: str) -> None:
    """Run a script or module in two processes; a failure shows what they printed."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def distill(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command that distils a student from a trained teacher, but for its --out."""
    folder = tmp_path_factory.mktemp("distributed")
    (folder / "models.py").write_text(MODELS)
    teacher = str(folder / "teacher")
    model = f"{folder}/models.py:teacher"
    limbeck(["train", "classification", *BUDGET, "--model", model, "--epochs", "3", "--out", teacher])
    return [
        *("distill", "classification", *BUDGET, "--images", "512", "--epochs", "2", "--weight", "0.01"),
        *("--teacher", teacher, "--teacher-size", "8", "--student", f"{folder}/models.py:student"),
    ]


@pytest.fixture(scope="module")
def reference(distill: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process, one part a step."""
    run = tmp_path_factory.mktemp("reference") / "run"
    limbeck([*distill, "--out", str(run)])
    assert metrics(run)[-1]["top1"] > 0.5, "the student learnt, so equal runs say something"
    return run


def metrics(run: Path, kind: str = "val") -> list[dict[str, float]]:
    entries = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in entry.items() if name not in ("kind", "images_per_second", "data_wait")}
        for entry in entries
        if entry["kind"] == kind
    ]


def largest_difference(run: Path, other: Path) -> float:
    here, there = (load_file(each / "student-last.safetensors") for each in (run, other))
    assert here.keys() == there.keys()
    return max((here[name] - there[name]).abs().max().item() for name in here)


def assert_same_run(run: Path, other: Path) -> None:
    assert largest_difference(run, other) < 1e-5
    ours, theirs = metrics(run), metrics(other)
    losses = [[each.pop("loss") for each in measured] for measured in (ours, theirs)]
    assert ours == theirs
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    for here, there in zip(metrics(run, "train"), metrics(other, "train"), strict=True):
        assert here == pytest.approx(there, rel=1e-4)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = tmp_path_factory.mktemp("ranks")
    torchrun(str(Path(__file__).parent / "scripts" / "ddp_step.py"), str(folder))
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(2)]


def test_gradients_are_bitwise_equal_on_all_processes(ranks: list[dict]) -> None:
    assert ranks[0]["task"] != ranks[1]["task"], "the processes see other images"
    for here, there in zip(ranks[0]["gradients"], ranks[1]["gradients"], strict=True):
        assert here.keys() == there.keys()
        assert [name for name in here if not torch.equal(here[name], there[name])] == []
    last: dict[str, Tensor] = ranks[0]["gradients"][-1]
    assert {
        "matches.0.projector.weight",
        "matches.1.criterion.generator.0.weight",
        "matches.2.criterion.hidden.weight",
        "student.0.weight",
    } <= last.keys()
    assert [name for name, gradient in last.items() if not gradient.any()] == []


def test_auto_weight_is_the_first_processs_on_all(ranks: list[dict]) -> None:
    assert ranks[0]["weight"] == ranks[1]["weight"]
    mean = 0.0
    for count, quotient in enumerate(ranks[0]["quotients"].log().tolist()):
        mean += max(RATE, 1 / (count + 1)) * (quotient - mean)
    assert ranks[0]["weight"] == pytest.approx(RATIO * exp(mean), rel=1e-3)


@pytest.mark.skipif(torch.cuda.is_available(), reason="two processes without a GPU, the one process would have it")
def test_two_processes_train_as_one(distill: list[str], reference: Path, tmp_path: Path) -> None:
    torchrun("-m", "limbeck", *distill, "--out", str(tmp_path / "run"))
    assert_same_run(tmp_path / "run", reference)


def test_accumulated_micro_batches_train_as_one_batch(distill: list[str], reference: Path, tmp_path: Path) -> None:
    limbeck([*distill, "--accumulate", "2", "--out", str(tmp_path / "run")])
    assert_same_run(tmp_path / "run", reference)


def test_accumulated_micro_batches_train_as_one_batch_with_unlabelled_images(
    distill: list[str], tmp_path: Path
) -> None:
    for accumulate in "12":
        run = tmp_path / accumulate
        limbeck([*distill, "--labels", "300", "--accumulate", accumulate, "--out", str(run)])
    assert_same_run(tmp_path / "1", tmp_path / "2")


def test_processes_that_are_started_again_do_not_look_for_those_that_are_gone(tmp_path):
    """With the store of torchrun's default rendezvous, which outlives its processes."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    shared |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "CUDA_VISIBLE_DEVICES": ""}
    for restart in ("0", "1"):
        processes = []
        for rank in ("0", "1"):
            environment = {**os.environ, **shared, "RANK": rank, "LOCAL_RANK": rank}
            environment["TORCHELASTIC_RESTART_COUNT"] = restart
            command = [sys.executable, str(ROOT / "tests" / "scripts" / "rejoin.py"), str(tmp_path)]
            processes.append(subprocess.Popen(command, env=environment))
            time.sleep(3 * (restart == "1"))  # what the first would find is what the last ones left
        assert [process.wait(timeout=120) for process in processes] == [0, 0]


NORMED = """
from torch import nn


def student(num_classes):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, num_classes)
    )
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason="two processes without a GPU, the one process would have it")
def test_two_processes_measure_the_student_that_is_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Batch norms see the images of one process alone, so statistics differ until one process's are taken."""
    (tmp_path / "models.py").write_text(NORMED)
    run = str(tmp_path / "run")
    model = ("--model", f"{tmp_path}/models.py:student", "--epochs", "1", "--images", "512")
    torchrun("-m", "limbeck", "train", "classification", *BUDGET, *model, "--out", run)
    limbeck(["evaluate", run, "--json"])
    (measured,) = json.loads(capsys.readouterr().out.splitlines()[-1])["models"].values()
    logged = metrics(tmp_path / "run")[-1]
    assert {name: measured[name] for name in ("top1", "loss")} == pytest.approx(
        {name: logged[name] for name in ("top1", "loss")}, rel=1e-5
    )
