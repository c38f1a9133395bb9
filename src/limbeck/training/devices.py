"""Where a run computes."""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from limbeck.training.options import RunOptions
from limbeck.training.recipe import Budget


def make_accelerator(budget: Budget, run: Path, options: RunOptions) -> Accelerator:
    """Accelerate's view of this process: its device, precision, the other processes, and the tracker."""
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    # Or a second run in this process could have no other precision, or device.
    AcceleratorState._reset_state(reset_partial_state=alone)
    cpu = not torch.accelerator.is_available()  # if not said, processes without a GPU do not find each other
    if options.device is not None:
        cpu = choose(options.device, alone=alone).type == "cpu"
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False  # resume is to be exact
    if not alone and restarts() and not dist.is_initialized():
        rejoin("cpu" if cpu else torch.accelerator.current_accelerator().type)  # type: ignore[union-attr]
    precision = "no" if budget.precision == "fp32" else budget.precision
    return Accelerator(cpu=cpu, mixed_precision=precision, log_with=options.tracker, project_dir=run)


def restarts() -> int:
    """How often torchrun has started these processes again, under ``--max-restarts``."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def rejoin(device: str) -> None:
    """Make the process group of processes that were started again.

    torchrun's default rendezvous keeps its store, and with it the addresses of the processes that are gone, where the
    new ones would look for each other ("connection refused"). So each start has a part of the store to itself.
    """
    store, rank, processes = next(rendezvous("env://"))
    store = PrefixStore(f"restart-{restarts()}", store)
    backend = dist.get_default_backend_for_device(device)
    dist.init_process_group(backend, store=store, rank=rank, world_size=processes)


def choose(name: str, *, alone: bool) -> torch.device:
    """Make a device by name the one that this process computes on.

    Raises:
        ValueError: There is no such device here.
    """
    found = torch.accelerator.current_accelerator(check_available=True)
    kind, count = (found.type, torch.accelerator.device_count()) if found is not None else ("", 0)
    present = ["cpu", *([kind] if kind else []), *(f"{kind}:{index}" for index in range(count))]
    if name not in present:
        raise ValueError(f"there is no device {name!r} here; there are {', '.join(present)}")
    device = torch.device(name)
    if device.index is not None:
        if not alone:
            raise ValueError(f"each process has a device of its own: pass --device {kind}, without a number")
        torch.accelerator.set_device_index(device.index)
    return device
