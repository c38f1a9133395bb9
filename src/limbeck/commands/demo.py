"""``limbeck demo``: the main job on scikit-learn's digits, in three minutes on two cores."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from limbeck.commands.arguments import call
from limbeck.commands.report import missing, write_report
from limbeck.tasks.classification import recipe as classification
from limbeck.tasks.classification.options import Data
from limbeck.training.compare import compare, table
from limbeck.training.loop import train
from limbeck.training.options import RunOptions
from limbeck.training.recipe import Budget, Recipe

LABELS = 50
SEEDS = range(3)
STEPS = 540  # of every student


def command(arguments: list[str]) -> None:
    """The main job on embedded data."""
    call(demo, "limbeck demo", arguments)


def demo(out: Path = Path("runs/demo")) -> None:
    """Train a teacher on all the digits' labels, then a student that has 50 of them, alone and distilled, on 3 seeds.

    Args:
        out: Folder of the runs.
    """
    print("scikit-learn's digits: 1,347 images to train on, 450 to measure on, 8x8 pixels")
    model = f"{__file__}:big"
    report = train(
        classification.train(Data("digits", augment="shift"), model, size=8, budget=budget(epochs=20)),
        out / "teacher",
        RunOptions(resume=True),
        quiet=True,
    )
    print(f"teacher, which has seen every label: top1 {report.last['top1']:.4f}", flush=True)
    print(f"students have {LABELS} labels; alone sees those images, distilled the other 1,297 too, without labels")
    teacher = str(out / "teacher")
    ways = {"alone": alone, "distilled": lambda seed: distilled(teacher, seed)}
    arms = compare(ways, SEEDS, out)
    print(f"\n{table(arms)}\n\nruns, each with its student.safetensors: {out}/")
    if lacking := missing():
        print(f"a page about them needs {', '.join(lacking)}: pip install 'limbeck[report]'")
    else:
        runs = [out / f"{name}-{seed}" for name in ways for seed in SEEDS]
        print(f"a page about them, for a browser: {write_report(runs, out / 'report.html')}")


def alone(seed: int) -> Recipe:
    # One step an epoch, so as many epochs as the distilled student has steps.
    data = Data("digits", labels=LABELS, augment="shift")
    steps = budget(epochs=STEPS, batch_size=LABELS, evaluate_every=STEPS, seed=seed)
    return classification.train(data, f"{__file__}:small", size=8, budget=steps)


def distilled(teacher: str, seed: int) -> Recipe:
    data = Data("digits", labels=LABELS, augment="shift")
    return classification.distill(data, teacher, f"{__file__}:small", size=8, budget=budget(epochs=20, seed=seed))


def budget(epochs: int, batch_size: int = 64, evaluate_every: int = 10, seed: int = 0) -> Budget:
    return Budget(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=0.1,
        warmup_epochs=epochs / 20,
        evaluate_every=evaluate_every,
        workers=0,
        seed=seed,
    )


def small(num_classes: int) -> nn.Module:
    return network(8, num_classes)


def big(num_classes: int) -> nn.Module:
    return network(32, num_classes)


def network(width: int, num_classes: int) -> nn.Module:
    return nn.Sequential(
        block(3, width),
        block(width, width),
        nn.MaxPool2d(2),
        block(width, 2 * width),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * width, num_classes),
    )


def block(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())
