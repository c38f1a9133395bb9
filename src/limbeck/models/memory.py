"""How much memory a model takes in inference."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import accumulate

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from limbeck.core.modules import Example, call, device_of, evaluating


@torch.inference_mode()
def peak_memory(model: nn.Module, example: Example) -> int:
    """Bytes of parameters and buffers, and of all other tensors that one pass in eval mode holds at once, at most.

    On a CPU these are tensors as torch allocates them: neither what libraries take within an operation, nor what the
    process holds of the system. On CUDA it is what torch's allocator counts.
    """
    held = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    with evaluating(model):
        call(model, example)  # what is made once
        if (device := device_of(model)).type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
            call(model, example)
            return held + torch.cuda.max_memory_allocated(device) - before
        return held + most_allocated(lambda: call(model, example))


def most_allocated(run: Callable[[], object]) -> int:
    """Bytes of tensors on the CPU that a call allocates and holds at once, at most."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else it tells of itself on the terminal, across live lines
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    assert profiler.profiler is not None
    events = profiler.profiler.kineto_results.events()
    changes: list[tuple[int, int]] = sorted(
        (event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"
    )
    return max(accumulate((size for _, size in changes), initial=0))
