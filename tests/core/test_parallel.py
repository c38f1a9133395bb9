"""A Distiller under every kind of data parallelism, in two processes that see other images."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.test_distributed import torchrun

SCRIPT = Path(__file__).parents[1] / "scripts" / "parallel_steps.py"
EXACT = ["static graph", "unused parameters", "bucket views", "FSDP2"]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Tensor]]]:
    folder = tmp_path_factory.mktemp("parallel")
    torchrun(str(SCRIPT), str(folder))
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("mode", ["DDP", *EXACT, "FSDP2 in bfloat16"])
def test_every_weight_of_student_projectors_and_criteria_is_trained_alike_on_all_processes(ranks, mode):
    here, there = (rank[mode] for rank in ranks)
    assert {"student.0.weight", "matches.0.projector.weight", "matches.1.criterion.generator.0.weight"} <= here.keys()
    assert [name for name in here if not torch.equal(here[name], there[name])] == []
    assert [name for name in here if torch.equal(here[name], ranks[0]["before"][name])] == []


@pytest.mark.parametrize("mode", EXACT)
def test_other_modes_of_ddp_and_fsdp2_train_bitwise_as_ddp(ranks, mode):
    assert [name for name, weight in ranks[0]["DDP"].items() if not torch.equal(ranks[0][mode][name], weight)] == []


def test_fsdp2_with_weights_in_bfloat16_trains_nearly_as_ddp(ranks):
    before = ranks[0]["before"]
    for name, weight in ranks[0]["DDP"].items():
        error = ranks[0]["FSDP2 in bfloat16"][name].float() - weight
        assert error.norm() < 0.1 * (weight - before[name]).norm(), name
