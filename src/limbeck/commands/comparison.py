"""Whether an exported file gives what the student gives, on the run's validation images."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from torch import Tensor

from limbeck.export.deployed import Deployed, Run
from limbeck.export.parity import LARGEST, batches_of, differences, repeated
from limbeck.models.model import Model
from limbeck.tasks.kind import Validation

Precision = Literal["fp32", "fp16", "int8"]
MAX_LOSS: dict[Precision, float] = {"fp32": 0.001, "fp16": 0.01, "int8": 0.01}
COMPARED = 3  # images of which the outputs are compared


class Comparison:
    """A student and what is exported of it, side by side.

    Args:
        model: The student.
        deployed: As it is exported.
        validation: Images on which both are measured.
        max_loss: What the metric may lose; ``None``: 0.001, and 0.01 below float32.
    """

    def __init__(self, model: Model, deployed: Deployed, validation: Validation, max_loss: float | None):
        self.model, self.deployed, self.validation, self.max_loss = model, deployed, validation, max_loss

    def sized(self, size: list[int] | None) -> Comparison:
        """The same for images of a fixed height and width."""
        deployed = replace(self.deployed, size=None if size is None else (size[0], size[1]))
        return Comparison(self.model, deployed, self.validation, self.max_loss)

    def calibration(self, count: int, batch: int | None) -> list[Tensor]:
        """Training images, each as a batch (B, 3, H, W) in [0, 1] as the file takes it: alone, or ``batch`` times."""
        images = self.validation.seen(self.model, count, training=True)
        return [batches_of([image], self.deployed, batch or 1)[0] for image in images]

    def check(self, run: Run, batch: int | None, precision: Precision) -> None:
        """Compare outputs and metric, and say how far they are apart.

        Args:
            run: Runs the file.
            batch: The number of images that it takes; ``None``: any.
            precision: In which it computes; below float32 the metric alone decides.

        Raises:
            ValueError: They are too far apart.
        """
        images = self.validation.seen(self.model, COMPARED)
        for found in differences(self.deployed, run, batches_of(images, self.deployed, batch)):
            shape = "x".join(map(str, found.images))
            line = f"{found.output}: largest difference {found.largest:.2g}, {found.relative:.1g} of its largest value"
            print(f"{line}, of images {shape}")
            if precision == "fp32" and not found.relative <= LARGEST:
                raise ValueError(f"{line}, of images {shape}; it may be {LARGEST:g}")
        self._check_metric(run, batch, precision)

    def _check_metric(self, run: Run, batch: int | None, precision: Precision) -> None:
        of_torch = self._measure(self.deployed.run)
        of_file = self._measure(run if batch is None else repeated(run, batch))
        name = next(iter(of_torch))  # what the best student is chosen by
        lost, most = of_torch[name] - of_file[name], MAX_LOSS[precision] if self.max_loss is None else self.max_loss
        line = (
            f"{name} on {self.validation.count} validation images: {of_file[name]:.4f} by the file, "
            f"{of_torch[name]:.4f} by torch"
        )
        if not lost <= most:
            raise ValueError(f"{line}; it may lose {most:g}, which --max-loss changes")
        print(line)

    def _measure(self, run: Run) -> dict[str, float]:
        student = self.deployed.as_student(run, self.deployed.size)
        return self.validation.measure(replace(self.model, module=student))
