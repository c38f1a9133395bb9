"""Distillation in your own training loop, on the 8x8 digits that come with scikit-learn.

The teacher's loop is a plain one; the student's differs from it in three lines.
"""

from collections import OrderedDict
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from limbeck import Distiller, Match
from limbeck.criteria import ChannelTransform


def conv(before: int, after: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(nn.Conv2d(before, after, 3, stride, padding=1), nn.BatchNorm2d(after), nn.ReLU())


def conv_net(width: int) -> nn.Module:
    layers = OrderedDict(
        layer1=conv(1, width),
        layer2=conv(width, width, stride=2),
        layer3=conv(width, 2 * width),
        layer4=conv(2 * width, 2 * width, stride=2),
        classifier=nn.Sequential(nn.Flatten(), nn.Linear(2 * width * 2 * 2, 10)),
    )
    return nn.Sequential(layers)


@torch.no_grad()
def accuracy(model: nn.Module, loader: DataLoader) -> float:
    model.eval()
    return torch.cat([model(images).argmax(1) == labels for images, labels in loader]).float().mean().item()


def main(epochs: int = 4, student_file: Path = Path("student.safetensors")) -> dict[str, float]:
    torch.manual_seed(0)
    digits = load_digits()
    images, labels = torch.tensor(digits.images).float().unsqueeze(1) / 16, torch.tensor(digits.target)
    train, held_out = random_split(TensorDataset(images, labels), [0.75, 0.25])
    loader, held_out_loader = DataLoader(train, batch_size=64, shuffle=True), DataLoader(held_out, batch_size=64)

    teacher = conv_net(width=32)
    optimizer = torch.optim.AdamW(teacher.parameters(), lr=3e-3)
    for _ in range(epochs):
        teacher.train()
        for images, labels in loader:
            output = teacher(images)
            loss = F.cross_entropy(output, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    student = conv_net(width=8)
    images, _ = next(iter(loader))  # the example: everything is checked, and the transform is built, from it
    distiller = Distiller(student, teacher, [Match("layer4", "layer4", ChannelTransform(), weight="auto")], example=(images,))  # fmt: skip  # noqa: E501
    optimizer = torch.optim.AdamW(distiller.parameters(), lr=3e-3)  # student and transform; the teacher is frozen
    for _ in range(epochs):
        distiller.train()  # the teacher stays in eval mode
        for images, labels in loader:
            out = distiller(images)
            loss = F.cross_entropy(out.output, labels) + out.loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    accuracies = {"teacher": accuracy(teacher, held_out_loader), "student": accuracy(student, held_out_loader)}
    print(", ".join(f"{name} {value:.3f}" for name, value in accuracies.items()))
    save_file(student.state_dict(), student_file)  # the student alone: its own code loads it, without limbeck
    return accuracies


if __name__ == "__main__":
    main()
