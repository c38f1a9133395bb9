"""Distillation in a LightningModule, on the 8x8 digits that come with scikit-learn.

The module holds a Distiller. Lightning's checkpoints then hold the student and the transform, never the teacher.
"""

from pathlib import Path

import lightning as L
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from limbeck import Distiller, Match
from limbeck.criteria import ChannelTransform

Batch = list[Tensor]


def conv_net(width: int) -> nn.Module:
    body = nn.Sequential(nn.Conv2d(1, width, 3), nn.ReLU(), nn.Conv2d(width, 2 * width, 3), nn.ReLU())  # to 4x4 pixels
    return nn.Sequential(body, nn.Flatten(), nn.Linear(2 * width * 4 * 4, 10))


class Classifier(L.LightningModule):
    """A network that is trained alone."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def training_step(self, batch: Batch) -> Tensor:
        images, labels = batch
        return F.cross_entropy(self(images), labels)

    def validation_step(self, batch: Batch) -> None:
        images, labels = batch
        self.log("accuracy", (self(images).argmax(1) == labels).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


class DistilledClassifier(Classifier):
    """The same, beside a teacher: the network is a Distiller, and only the training step knows it."""

    network: Distiller

    def forward(self, images: Tensor) -> Tensor:
        return self.network.student(images)

    def training_step(self, batch: Batch) -> Tensor:
        images, labels = batch
        out = self.network(images)
        self.log_dict(out.losses)
        return F.cross_entropy(out.output, labels) + out.loss


def main(epochs: int = 4, folder: Path = Path("runs/lightning")) -> dict[str, float]:
    L.seed_everything(0)
    digits = load_digits()
    images, labels = torch.tensor(digits.images).float().unsqueeze(1) / 16, torch.tensor(digits.target)
    train, held_out = random_split(TensorDataset(images, labels), [0.75, 0.25])
    loader, held_out_loader = DataLoader(train, batch_size=64, shuffle=True), DataLoader(held_out, batch_size=64)

    teacher = Classifier(conv_net(width=32))
    trainer = L.Trainer(max_epochs=epochs, default_root_dir=folder, logger=False, enable_checkpointing=False)
    trainer.fit(teacher, loader, held_out_loader)
    teacher_accuracy = trainer.callback_metrics["accuracy"].item()

    student = conv_net(width=8)
    matches = [Match("0", "0", ChannelTransform(), weight="auto")]  # "0" is the body of either network
    distiller = Distiller(student, teacher.network, matches, example=(images[:2],))
    trainer = L.Trainer(max_epochs=epochs, default_root_dir=folder, logger=False)
    trainer.fit(DistilledClassifier(distiller), loader, held_out_loader)
    accuracies = {"teacher": teacher_accuracy, "student": trainer.callback_metrics["accuracy"].item()}
    print(", ".join(f"{name} {value:.3f}" for name, value in accuracies.items()))
    return accuracies


if __name__ == "__main__":
    main()
