"""Run by torchrun from core/test_parallel.py: the same steps of a Distiller in every kind of data parallelism."""

import sys
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from limbeck import Distiller, Match, conv1x1
from limbeck.criteria import KD, MGD, ChannelTransform


def network(width: int) -> nn.Module:
    first, second = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 2 * width, 3, padding=1)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(), nn.Linear(2 * width * 8 * 8, 5))


def distiller() -> Distiller:
    torch.manual_seed(0)
    matches = [
        Match("1", "1", nn.MSELoss(), projector=conv1x1),
        Match("2", "2", MGD(), projector=conv1x1, weight=0.1),
        Match("3", "3", ChannelTransform(), weight=0.1),
        Match("", "", KD()),
    ]
    return Distiller(network(4), network(8), matches, example=torch.randn(2, 3, 8, 8))


def sharded(distiller: Distiller, **options: MixedPrecisionPolicy) -> nn.Module:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for part in (distiller.student[2], distiller.matches[2], distiller):
        fully_shard(part, mesh=mesh, **options)
    return distiller


MODES = {
    "DDP": DistributedDataParallel,
    "static graph": partial(DistributedDataParallel, static_graph=True),
    "unused parameters": partial(DistributedDataParallel, find_unused_parameters=True),
    "bucket views": partial(DistributedDataParallel, gradient_as_bucket_view=True),
    "FSDP2": sharded,
    "FSDP2 in bfloat16": partial(sharded, mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16)),
}


def trained(mode: str) -> dict[str, Tensor]:
    model = MODES[mode](distiller())
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    for step in range(3):
        torch.manual_seed(2 * step + dist.get_rank())  # the processes see other images
        images, labels = torch.randn(4, 3, 8, 8), torch.randint(5, (4,))
        out = model(images)
        optimizer.zero_grad()
        (F.cross_entropy(out.output.float(), labels) + out.loss).backward()
        optimizer.step()
    state = {name.removeprefix("module."): value.detach() for name, value in model.named_parameters()}
    return {name: value.full_tensor() if isinstance(value, DTensor) else value for name, value in state.items()}


def main(folder: Path) -> None:
    dist.init_process_group("gloo")
    found = {mode: trained(mode) for mode in MODES}
    torch.save({"before": dict(distiller().named_parameters())} | found, folder / f"rank{dist.get_rank()}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
