"""A process that finds the others, as a run does, and ends."""

import sys
from pathlib import Path

import torch

from limbeck.training.devices import make_accelerator
from limbeck.training.options import RunOptions
from limbeck.training.recipe import Budget

if __name__ == "__main__":
    accelerator = make_accelerator(Budget(), Path(sys.argv[1]), RunOptions(device="cpu"))
    assert accelerator.reduce(torch.ones(1)).item() == 2
    accelerator.end_training()  # a group that is left to the interpreter's end can abort the process
