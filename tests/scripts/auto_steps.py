"""Run by torchrun from core/test_auto_parallel.py: weights that are found in training, in kinds of data parallelism."""

import sys
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from limbeck import Distiller, Match, conv1x1
from limbeck.criteria import ChannelTransform

STEPS = 20  # more than are measured one after another


def network(width: int) -> nn.Module:
    first, second = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 2 * width, 3, padding=1)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(), nn.Linear(2 * width * 8 * 8, 5))


def make(process_group: dist.ProcessGroup | None = None) -> Distiller:
    torch.manual_seed(0)
    matches = [
        Match("1", "1", nn.MSELoss(), projector=conv1x1, weight="auto"),
        Match("3", "3", ChannelTransform(), weight="auto"),
    ]
    example = torch.randn(2, 3, 8, 8)
    return Distiller(network(4), network(8), matches, example=example, process_group=process_group)


def sharded(distiller: Distiller, **options: MixedPrecisionPolicy) -> nn.Module:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for part in (distiller.student[2], *distiller.matches, distiller):
        fully_shard(part, mesh=mesh, **options)
    return distiller


def train(model: nn.Module, steps: range, *, whole: bool = False) -> nn.Module:
    """On this process's half of each batch, or on the whole of it; the rate is 0, so that the models stay alike."""
    for step in steps:
        torch.manual_seed(step)
        images, labels = torch.randn(8, 3, 8, 8), torch.randint(5, (8,))
        part = slice(None) if whole else slice(4 * dist.get_rank(), 4 * dist.get_rank() + 4)
        out = model(images[part])
        model.zero_grad()
        (F.cross_entropy(out.output.float(), labels[part]) + out.loss).backward()
    return model


def weights(distiller: Distiller) -> Tensor:
    return torch.tensor([match.weight for match in distiller.matches])


def resumed_on_the_first_process_alone() -> Tensor:
    """A checkpoint is loaded by one process, and DDP brings the others to its state."""
    before = train(DistributedDataParallel(make()), range(13))
    distiller = make()
    if dist.get_rank() == 0:
        distiller.load_state_dict(before.module.state_dict())
    train(DistributedDataParallel(distiller), range(13, STEPS))
    return weights(distiller)


def by_itself() -> Tensor:
    groups = [dist.new_group([rank]) for rank in range(dist.get_world_size())]
    return weights(train(make(groups[dist.get_rank()]), range(STEPS)))


def main(folder: Path) -> None:
    dist.init_process_group("gloo")
    in_bfloat16 = partial(sharded, mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16))
    found = {
        "DDP": weights(train(DistributedDataParallel(make()), range(STEPS)).module),
        "FSDP2": weights(train(sharded(make()), range(STEPS))),
        "FSDP2 in bfloat16": weights(train(in_bfloat16(make()), range(STEPS))),
        "whole batches": weights(train(make(), range(STEPS), whole=True)),
        "resumed": resumed_on_the_first_process_alone(),
        "by itself": by_itself(),
    }
    torch.save(found, folder / f"rank{dist.get_rank()}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
