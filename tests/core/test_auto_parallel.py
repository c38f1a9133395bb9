"""Weights that are found in training are one number for all processes."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.test_distributed import torchrun


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    folder = tmp_path_factory.mktemp("auto")
    torchrun(str(Path(__file__).parents[1] / "scripts" / "auto_steps.py"), str(folder))
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("mode", ["DDP", "FSDP2", "FSDP2 in bfloat16", "resumed"])
def test_weights_are_equal_on_all_processes(ranks: list[dict[str, Tensor]], mode: str) -> None:
    assert torch.equal(ranks[0][mode], ranks[1][mode])


def test_sharded_processes_measure_what_one_process_measures_on_the_whole_batch(
    ranks: list[dict[str, Tensor]],
) -> None:
    torch.testing.assert_close(ranks[0]["FSDP2"], ranks[0]["whole batches"], rtol=1e-4, atol=0)
    torch.testing.assert_close(ranks[0]["FSDP2 in bfloat16"], ranks[0]["whole batches"], rtol=0.05, atol=0)


def test_checkpoint_that_the_first_process_alone_has_loaded_goes_on_for_all(ranks: list[dict[str, Tensor]]) -> None:
    assert torch.equal(ranks[0]["resumed"], ranks[0]["DDP"])


def test_processes_with_groups_of_their_own_find_weights_of_their_own(ranks: list[dict[str, Tensor]]) -> None:
    assert not torch.isclose(ranks[0]["by itself"], ranks[1]["by itself"], rtol=1e-3).any()
    torch.testing.assert_close(ranks[0]["by itself"], ranks[0]["DDP"])  # the first process's number
