"""Options of a run that do not change what comes of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a run is started; none of these changes the student that comes of it."""

    resume: bool = False
    """Go on from the newest checkpoint in --out, if there is one; the result is bitwise that of an unbroken run."""
    tracker: str | None = None
    """Log to a tracker of Accelerate's too: tensorboard, wandb, mlflow, comet_ml, clearml, aim."""
