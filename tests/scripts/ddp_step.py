"""Run by torchrun from test_distributed.py: steps of a Distiller in DDP, and what every process saw of them."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from limbeck import Distiller, Match, conv1x1
from limbeck.core.auto_weight import BATCHES
from limbeck.criteria import MGD, ChannelTransform


def network(width: int) -> nn.Module:
    first, second = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 2 * width, 3, padding=1)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(), nn.Linear(2 * width * 8 * 8, 5))


def norm_of_gradient(loss: Tensor, feature: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(loss, feature, retain_graph=True)
    return gradient.norm()


def main(folder: Path) -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(0)
    teacher = network(8)
    features: dict[str, Tensor] = {}
    # Before the Distiller, which stops the teacher at this layer.
    teacher[3].register_forward_hook(lambda module, inputs, output: features.update(teacher=output))
    torch.manual_seed(rank)  # the weights that are trained differ, until DDP makes them equal; so do the images
    matches = [
        Match("1", "1", nn.MSELoss(), projector=conv1x1, weight=0.1),
        Match("1", "1", MGD(), projector=conv1x1, weight=0.001),
        Match("3", "3", ChannelTransform(), weight="auto"),
    ]
    distiller = Distiller(network(4), teacher, matches, example=(torch.randn(2, 3, 8, 8),))
    model = DistributedDataParallel(distiller)
    optimizer = torch.optim.SGD(distiller.parameters(), 0.01)
    distiller.student[3].register_forward_hook(lambda module, inputs, output: features.update(student=output))

    seen: list[dict[str, Tensor]] = []
    quotients: list[Tensor] = []
    for _ in range(BATCHES + 3):
        images, labels = torch.randn(4, 3, 8, 8) * (1 + rank), torch.randint(5, (4,))
        out = model(images)
        task = F.cross_entropy(out.output, labels)
        if len(quotients) < BATCHES:
            criterion = matches[-1](features["student"], features["teacher"])
            quotients.append(
                norm_of_gradient(task, features["student"]) / norm_of_gradient(criterion, features["student"])
            )
        optimizer.zero_grad()
        (task + out.loss).backward()
        seen.append({name: parameter.grad.clone() for name, parameter in distiller.named_parameters()})
        optimizer.step()
    found = {
        "gradients": seen,
        "weight": matches[-1].weight,
        "quotients": torch.stack(quotients),
        "task": task.detach(),
    }
    torch.save(found, folder / f"rank{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
