"""What a training step costs, by part: measured once, on a batch of the training, which nothing is learnt from."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from limbeck.compress.timing import timed
from limbeck.core.building import keeping_buffers
from limbeck.core.distiller import Distiller
from limbeck.core.features import gather
from limbeck.core.modules import call
from limbeck.training.alone import Alone
from limbeck.training.task import Task

TIMES, SECONDS = 3, 1.0  # so often a part is timed at most, and for so long; the median is taken
MIB = 2**20


def step_cost(trained: Distiller | Alone, task: Task, batch: Any, accelerator: Accelerator) -> dict[str, float]:
    """Milliseconds of the parts of a step on a micro-batch, and MiB that each keeps for its backward pass.

    The student's part is its forward and backward pass by the task's loss alone, the teacher's its forward pass, the
    criteria's what they and the projectors do forwards and backwards. Without compilation; buffers, gradients and modes
    are as before afterwards.
    """
    inputs, teacher_inputs, truth = task.inputs(batch), task.teacher_inputs(batch), task.truth(batch)
    costs: dict[str, float] = {}

    def student() -> None:
        loss = task.loss(call(trained.student, inputs), batch)
        learn(loss, trained.student)

    with keeping_buffers(trained), torch.enable_grad(), accelerator.autocast():
        costs |= cost_of("student", student)
        if isinstance(trained, Distiller):
            given = inputs if teacher_inputs is None else teacher_inputs
            costs |= cost_of("teacher", lambda: call(trained.teacher, given))
            read, target = trained.features(inputs, teacher_inputs)
            read = {layer: feature.detach().requires_grad_() for layer, feature in read.items()}

            def criteria() -> None:
                for match in trained.matches:
                    features = gather(read, match.student)
                    learn(match(features, gather(target, match.teacher), truth), match, features)

            costs |= cost_of("criteria", criteria)
    return costs


def learn(loss: Tensor, module: nn.Module, *features: Any) -> None:
    """The gradients of a loss, which are left nowhere; a criterion that is only looked at may have none."""
    if not loss.requires_grad:
        return
    given = [tensor for feature in features for tensor in (feature if isinstance(feature, tuple) else (feature,))]
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    torch.autograd.grad(loss, [*given, *weights], allow_unused=True)


def cost_of(part: str, run: Callable[[], None]) -> dict[str, float]:
    with counting_kept() as kept:
        run()
    times: list[float] = []
    while not times or (len(times) < TIMES and sum(times) < SECONDS):
        times.append(timed(run))
    return {f"{part}_ms": 1e3 * median(times), f"{part}_mib": sum(kept.values()) / MIB}


@contextmanager
def counting_kept() -> Iterator[dict[int, int]]:
    """The bytes of what is kept for the backward pass, by where it lies."""
    kept: dict[int, int] = {}
    held: list[Tensor] = []  # or another tensor would come to lie where one was

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        held.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield kept


def peak_memory() -> dict[str, float]:
    """The most memory that this process has taken so far, in MiB: on the host, and on its GPU where it has one."""
    peaks = {}
    if sys.platform != "win32":
        import resource

        unit = 1 if sys.platform == "darwin" else 1024  # bytes or KiB
        peaks["host_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB
    if torch.cuda.is_available():
        peaks["gpu_mib"] = torch.cuda.max_memory_allocated() / MIB
    return peaks
