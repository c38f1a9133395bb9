"""A criterion of one's own: any callable of (student, teacher) that gives a scalar, with no base class and no registry.

On the command line: ``limbeck distill ... --method examples/custom_criterion.py:cosine_distance``.

Here a cosine distance of the class scores, together with the FitNets of https://arxiv.org/abs/1412.6550: the mean
squared error between the teacher's maps and a 1x1 convolution of the student's.
"""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from limbeck import Distiller, Match, conv1x1


def cosine_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """One minus the cosine of the angle between the two, for each image; 0 where they point the same way."""
    return (1 - F.cosine_similarity(student.flatten(1), teacher.detach().flatten(1))).mean()


def conv_net(width: int) -> nn.Module:
    body = nn.Sequential(nn.Conv2d(1, width, 3), nn.ReLU(), nn.Conv2d(width, 2 * width, 3), nn.ReLU())  # to 4x4 pixels
    return nn.Sequential(body, nn.Flatten(), nn.Linear(2 * width * 4 * 4, 10))


def main(steps: int = 100) -> list[dict[str, float]]:
    torch.manual_seed(0)
    digits = load_digits()
    images, labels = torch.tensor(digits.images).float().unsqueeze(1) / 16, torch.tensor(digits.target)

    teacher = conv_net(width=32)
    optimizer = torch.optim.AdamW(teacher.parameters(), lr=3e-3)
    for _ in range(steps):
        some = torch.randint(len(images), (64,))
        loss = F.cross_entropy(teacher(images[some]), labels[some])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    matches = [
        Match("", "", cosine_distance),  # "" is the output
        Match("0", "0", nn.MSELoss(), projector=conv1x1, weight=0.5),  # "0" is the body: 8 channels to 64
    ]
    distiller = Distiller(conv_net(width=4), teacher, matches, example=(images[:2],))
    optimizer = torch.optim.AdamW(distiller.parameters(), lr=3e-3)  # the student's and the projector's
    history = []
    for _ in range(steps):
        some = torch.randint(len(images), (64,))
        out = distiller(images[some])
        loss = F.cross_entropy(out.output, labels[some]) + out.loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append({name: value.item() for name, value in out.losses.items()})
    print("first", history[0])
    print("last ", history[-1])
    return history


if __name__ == "__main__":
    main()
