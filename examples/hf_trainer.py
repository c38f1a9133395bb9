"""Distillation of a vision transformer in the Hugging Face Trainer, on the 8x8 digits that come with scikit-learn.

The Trainer trains a Distiller. Its checkpoints then hold the student and the transform, never the teacher.
"""

from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch.utils.data import random_split
from transformers import EvalPrediction, Trainer, TrainingArguments, ViTConfig, ViTForImageClassification, set_seed

from limbeck import Distiller, Layer, Match, tokens_to_map
from limbeck.criteria import ChannelTransform


class DistillationTrainer(Trainer):
    """Adds the distiller's loss to the student's own, which a student called with labels has in its output."""

    loss_is_scaled_for_ga = False  # it is a mean, so the Trainer divides it where it accumulates gradients

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        out = model(**inputs)
        loss = out.output.loss + out.loss
        return (loss, out.output) if return_outputs else loss


def vit(width: int, layers: int) -> ViTForImageClassification:
    config = ViTConfig(
        image_size=8,
        patch_size=2,
        num_channels=1,
        num_labels=10,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        initializer_range=0.1,  # 0.02 is for wide layers
    )
    return ViTForImageClassification(config)


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    return {"accuracy": (prediction.predictions.argmax(1) == prediction.label_ids).mean().item()}


def main(epochs: int = 4, folder: Path = Path("runs/hf_trainer")) -> dict[str, float]:
    set_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.images).float().unsqueeze(1) / 16
    samples = [{"pixel_values": image, "labels": label} for image, label in zip(images, digits.target, strict=True)]
    train, held_out = random_split(samples, [0.75, 0.25])
    settings = {
        "num_train_epochs": epochs,
        "learning_rate": 3e-3,
        "per_device_train_batch_size": 64,
        "per_device_eval_batch_size": 64,
        # The Trainer cannot tell from the Distiller's signature what the student takes, nor which of it are the labels.
        "remove_unused_columns": False,
        "label_names": ["labels"],
    }
    data = {"train_dataset": train, "eval_dataset": held_out, "compute_metrics": accuracy}

    teacher = vit(width=64, layers=2)
    teacher_trainer = Trainer(teacher, TrainingArguments(folder / "teacher", **settings), **data)
    teacher_trainer.train()
    accuracies = {"teacher": teacher_trainer.evaluate()["eval_accuracy"]}

    student = vit(width=32, layers=1)
    # The patches without the class token, as a map: another patch size would be brought to the teacher's grid.
    patches = Layer("vit.layernorm", read=tokens_to_map(prefix=1))
    matches = [Match(patches, patches, ChannelTransform(), weight=1e-3)]
    distiller = Distiller(student, teacher, matches, example={"pixel_values": images[:2]})
    trainer = DistillationTrainer(distiller, TrainingArguments(folder, **settings), **data)
    trainer.train()
    accuracies["student"] = trainer.evaluate()["eval_accuracy"]
    print(", ".join(f"{name} {value:.3f}" for name, value in accuracies.items()))
    student.save_pretrained(folder / "student")  # the student alone, for ViTForImageClassification.from_pretrained
    return accuracies


if __name__ == "__main__":
    main()
