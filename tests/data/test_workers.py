import subprocess
import sys

from limbeck.data.workers import usual_workers
from tests.places import ROOT

ASK = (
    "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    "from limbeck.training.recipe import Budget; print(Budget(epochs=1, batch_size=1).workers)"
)


def test_as_many_processes_load_as_torch_takes_without_a_warning(monkeypatch):
    for cores, expected in ((1, 1), (2, 2), (64, 2)):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, cores=cores: set(range(cores)), raising=False)
        assert usual_workers() == expected


def test_on_a_single_core_a_run_has_one_by_default():
    done = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "1"
