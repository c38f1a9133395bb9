"""What the tests of the commands share: how runs are read, and how they are killed."""

import json
import multiprocessing
import signal
import time

import pytest
import torch
from safetensors.torch import load_file

from limbeck.cli import main
from limbeck.models.run_folder import read_card


def log_of(run, kind):
    entries = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [entry for entry in entries if entry["kind"] == kind]


def weights(run, name="student-last.safetensors"):
    return load_file(run / name)


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def cells(shown):
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines() if line.startswith("│")]


def mistake(arguments, capsys):
    """What a command says that ends with the status of a user's mistake."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def run_once(arguments):
    """In a process of its own, to be killed."""
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # of the loader's workers, as in a run from the command line
    main(arguments)


def steps_saved(run, checkpoints="checkpoints"):
    return max((int(path.stem[5:]) for path in (run / checkpoints).glob("step-*.ckpt")), default=0)


def run_broken_and_unbroken(start, folder, kill_after, checkpoints="checkpoints"):
    """A run that is killed at some steps and resumed by its folder, to its end; and an unbroken one.

    Args:
        start: The command, but for its --out.
        folder: For both runs, broken and unbroken.
        kill_after: Steps of which a checkpoint is there when it is killed.
        checkpoints: Where in the run folder they are.
    """
    resume = ["compress" if start[0] == "compress" else "distill", str(folder / "broken"), "--resume"]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["limbeck.commands.run", "timm", __name__])
    broken, unbroken = folder / "broken", folder / "unbroken"
    for target in kill_after:
        arguments = resume if steps_saved(broken, checkpoints) else [*start, "--out", str(broken)]
        process = context.Process(target=run_once, args=(arguments,))
        process.start()
        while steps_saved(broken, checkpoints) < target and process.is_alive():
            time.sleep(0.005)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    for arguments in (resume, [*start, "--out", str(unbroken)]):
        process = context.Process(target=run_once, args=(arguments,))
        process.start()
        process.join()
        assert process.exitcode == 0
    return broken, unbroken


def assert_resumes_bitwise(start, folder, kill_after):
    """A run that is killed at some steps and resumed by its folder ends as an unbroken one."""
    broken, unbroken = run_broken_and_unbroken(start, folder, kill_after)
    for name in ("student.safetensors", "student-last.safetensors"):
        assert equal(weights(broken, name), weights(unbroken, name))
        assert read_card(broken / name) == read_card(unbroken / name)
    assert log_of(broken, "val") == log_of(unbroken, "val")
