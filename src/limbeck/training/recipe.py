"""Everything a run is, as objects."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import tyro
from torch import nn
from torch.utils.data import Dataset, default_collate

from limbeck.core.match import Match
from limbeck.data.workers import USUAL_WORKERS
from limbeck.training.ranges import check_ranges
from limbeck.training.task import Task
from limbeck.training.usual import CLASSIFIER, Optimizer, Usual

EXAMPLES = 8
WARMUP = 0.05  # of a run: 5 epochs of 100


@dataclass(frozen=True)
class Budget:
    """How long and how a model is trained; the same budget makes two runs comparable.

    Args:
        epochs: Passes over the training images.
        batch_size: Images per optimizer step, over all processes and accumulated micro-batches together.
        optimizer: SGD has Nesterov momentum 0.9. Norms and biases are never decayed.
        learning_rate: The highest learning rate; by default what is usual for the task and optimizer: for classifiers
            by SGD 0.1 for 256 images a batch, linear in it above and with its root below.
        weight_decay: Weight decay of tensors with two or more dimensions; by default what is usual: for
            classifiers 5e-4 by SGD, 0.05 by AdamW.
        schedule: What the learning rate does after the warm-up: fall to 0 as a cosine, or as the rest of the run to the
            power of 0.9; times 0.1 at 30, 60 and 90 %, or at 8 and 11 twelfths, as is usual for detectors; nothing.
        warmup_epochs: Epochs in which the learning rate rises linearly from 0; may be a fraction. By default a
            twentieth of all.
        clip: Largest norm of the gradient; None for no clipping.
        accumulate: Micro-batches per optimizer step.
        ema: Decay of an exponential moving average of the student per step, such as 0.999; then the average is
            evaluated and kept.
        precision: Precision of the forward and backward passes; weights and criteria are in fp32 always.
        channels_last: Keep the student's weights and maps in the channels_last memory format, in which convolutions are
            faster on a CPU; not measured on a GPU.
        workers: Loader processes, by default 2, or 1 on a single core; their number does not change the result.
        evaluate_every: Epochs between evaluations; the last epoch is always evaluated.
        checkpoint_every: Steps between checkpoints; there is one after each evaluation too.
        seed: Random seed: of initial weights, order, augmentation and dropout.
        loaded_rate: Learning rate of what starts from trained weights, as a part of that of everything else; by default
            what is usual: a tenth, but for detectors by SGD all of it.
        freeze: Keep what starts from trained weights as it is, and train the rest.
        max_steps: End after so many optimizer steps, where the epochs would take longer; the schedule ends there, too.
        patience: End after so many evaluations in a row that brought no better student; by default never before the
            last epoch.
        on_nan: Where a loss is not finite: stop; or go back to the last checkpoint, with half the learning rate from
            then on.
        compile: Compile the student, and what it is compared by, with torch.compile; evaluations are not compiled.
        sync_norms: Let the student's batch norms see the images of all GPUs (SyncBatchNorm).
        usual: Where the rate and decay that are not given come from.
    """

    epochs: int = 100
    batch_size: int = 128
    optimizer: Optimizer = "sgd"
    learning_rate: float | None = None
    weight_decay: float | None = None
    schedule: Literal["cosine", "poly", "steps", "two-steps", "constant"] = "cosine"
    warmup_epochs: float | None = None
    clip: float | None = 5.0
    accumulate: int = 1
    ema: float | None = None
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = True
    workers: int = USUAL_WORKERS
    evaluate_every: int = 1
    checkpoint_every: int = 500
    seed: int = 0
    loaded_rate: float | None = None
    freeze: bool = False
    max_steps: int | None = None
    patience: int | None = None
    on_nan: Literal["stop", "rewind"] = "stop"
    compile: bool = False
    sync_norms: bool = False
    usual: tyro.conf.Suppress[Usual] = CLASSIFIER

    def __post_init__(self) -> None:
        check_ranges(vars(self))
        if self.warmup > self.epochs:
            raise ValueError(f"warmup_epochs is {self.warmup_epochs}, more than the {self.epochs} epochs of the run")

    @property
    def highest_rate(self) -> float:
        """The learning rate after the warm-up."""
        if self.learning_rate is not None:
            return self.learning_rate
        return self.usual.rate(self.optimizer, self.batch_size)

    @property
    def decay(self) -> float:
        """The weight decay."""
        return self.usual.decay(self.optimizer) if self.weight_decay is None else self.weight_decay

    @property
    def loaded(self) -> float:
        """The part of the rate at which trained weights learn further."""
        return self.usual.loaded(self.optimizer) if self.loaded_rate is None else self.loaded_rate

    @property
    def warmup(self) -> float:
        """Epochs of warm-up."""
        return WARMUP * self.epochs if self.warmup_epochs is None else self.warmup_epochs


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A run, ready to be trained.

    Args:
        task: What a batch means.
        student: The model to train.
        teacher: A plain, unprepared teacher; ``None`` trains the student alone.
        matches: What follows what.
        task_weight: Multiplies the task's loss beside the matches': a number, or a function of progress in [0, 1].
        train_data: Takes keys ``(epoch, index)`` (see ``limbeck.data.order``).
        examples: Indices of the training samples that the matches are built from and checked with, before training;
            the first ``EXAMPLES`` if none are named, or as many as go through the models at once.
        val_data: Takes indices.
        val_batch_size: Where it is not the budget's, as for images of several sizes.
        collate: Makes a batch of samples.
        budget: How long and how.
        card: Stored beside the student's weights: what another program must know to use them.
        prepare: Arguments of ``prepare_teacher``, where they are not its defaults.
        teacher_check: Evaluate the teacher first, and stop if it is no better than chance.
        contents: Of the data, by name, in a few letters: a run is resumed only where they are the same.
        loaded: Names of the student's parameters that start from trained weights; they learn at another rate.
        notes: What the user should read before the run starts.
    """

    task: Task
    student: nn.Module
    teacher: nn.Module | None = None
    matches: Sequence[Match] = ()
    task_weight: float | Callable[[float], float] = 1.0
    train_data: Dataset[Any]
    examples: Sequence[int] = ()
    val_data: Dataset[Any]
    val_batch_size: int | None = None
    collate: Callable[[list[Any]], Any] = default_collate
    budget: Budget
    card: dict[str, Any] = field(default_factory=dict)
    prepare: dict[str, Any] = field(default_factory=dict)
    teacher_check: bool = True
    contents: Mapping[str, str] = field(default_factory=dict)
    loaded: Collection[str] = ()
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        for progress in (0.0, 1.0):
            if not 0 <= (weight := self.task_weight_at(progress)) < math.inf:
                raise ValueError(f"the task's weight is {weight} at progress {progress:g}; it must be 0 or more")
        if not self.task_weight_at(0.0) and any(match.measuring for match in self.matches):
            raise ValueError(
                "the weight auto follows the gradient of the task's loss, whose weight is 0 at first: write --weight "
                "with a number or a schedule, or --task-weight above 0"
            )

    def task_weight_at(self, progress: float) -> float:
        """The weight of the task's loss at a progress in [0, 1]."""
        return self.task_weight(progress) if callable(self.task_weight) else self.task_weight
