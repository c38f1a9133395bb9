"""What trains a model from scratch where its budget does not say: by task and optimizer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Optimizer = Literal["sgd", "adamw"]


@dataclass(frozen=True)
class Usual:
    """Rates and decays that a task's models are usually trained with.

    SGD's rate grows linearly with the batch (arXiv 1706.02677), and AdamW's with its root (arXiv 2205.10287), as timm
    has them. For smaller batches both fall with the root: linearly, SGD's starves short trainings (docs/log.md), and is
    below the 0.05 for 64 images that published trainings of small classifiers have.

    Args:
        batch_size: Images a step of which the rates are.
        sgd, adamw: Highest learning rates.
        sgd_decay, adamw_decay: Weight decays.
        sgd_loaded, adamw_loaded: Parts of the rate at which trained weights learn further.
    """

    batch_size: int
    sgd: float
    adamw: float
    sgd_decay: float
    adamw_decay: float = 0.05
    sgd_loaded: float = 0.1
    adamw_loaded: float = 0.1

    def rate(self, optimizer: Optimizer, batch_size: int) -> float:
        """The highest learning rate for a batch.

        >>> usual = Usual(batch_size=256, sgd=0.1, adamw=1e-3, sgd_decay=1e-4)
        >>> usual.rate("sgd", 1024), usual.rate("sgd", 64), usual.rate("adamw", 1024)
        (0.4, 0.05, 0.002)
        """
        rate = self.sgd if optimizer == "sgd" else self.adamw
        times = batch_size / self.batch_size
        return rate * (times if optimizer == "sgd" and times > 1 else math.sqrt(times))

    def decay(self, optimizer: Optimizer) -> float:
        return self.sgd_decay if optimizer == "sgd" else self.adamw_decay

    def loaded(self, optimizer: Optimizer) -> float:
        return self.sgd_loaded if optimizer == "sgd" else self.adamw_loaded


# SGD's rate is ImageNet's in torchvision's and timm's references; AdamW's was tried on transformers, too (docs/log.md).
CLASSIFIER = Usual(batch_size=256, sgd=0.1, adamw=1.4e-3, sgd_decay=5e-4)
