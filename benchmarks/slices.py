"""The time that training slices takes on one process, and on several.

    python benchmarks/slices.py
    torchrun --nproc-per-node 2 benchmarks/slices.py
    ... --cache DIR --epochs 3

One thread a process. A residual network for CIFAR with random weights and images, whose slices learn nothing that is
worth having, in the time that others take.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch
import torch.distributed as dist
import tyro
from cifar_resnet import network
from measure import circumstances

from limbeck import distill_slices, factorise
from limbeck.compress.processes import Processes


def main(
    width: int = 32,
    blocks: int = 2,
    batches: int = 40,
    batch: int = 64,
    ratio: float = 0.7,
    epochs: int = 1,
    cache: Path | None = None,
) -> None:
    """Print the seconds of training, of the processor where a process works longest, and a sum that is always the same.

    Args:
        width: Of the network's first stage.
        blocks: Of each of its three stages.
        batches: Of one pass.
        batch: Images of each.
        ratio: Part of the parameters that is saved.
        epochs: Passes.
        cache: Folder for activations; by default the original runs again in each pass, on each process.
    """
    torch.set_num_threads(1)
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
    torch.manual_seed(0)
    original = network(width, blocks, num_classes=10).eval()
    images = list(torch.randn(batches, batch, 3, 32, 32))
    smaller = factorise(original, ratio=ratio, example=images[0][:1], allocation="uniform")
    torch.optim.Adam(original.parameters())  # torch imports a good deal with its first optimizer
    if dist.is_initialized():
        dist.barrier()
    begun, begun_cpu = time.perf_counter(), time.process_time()
    distill_slices(original, smaller, images, inputs="original", epochs=epochs, patience=None, cache=cache)
    seconds = time.perf_counter() - begun
    cpu = Processes.started().gather(time.process_time() - begun_cpu)
    if not dist.is_initialized() or dist.get_rank() == 0:
        total = sum(parameter.double().sum().item() for parameter in smaller.model.parameters())
        print(circumstances())
        print(f"{len(cpu)} processes, {len(smaller.rows)} layers: {seconds:.1f} s, of the processor {max(cpu):.1f} s")
        print(f"sum of the weights {total:.9f}")
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    tyro.cli(main)
