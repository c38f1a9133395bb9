"""Options of a run that do not change what comes of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a run is started; none of these changes the student that comes of it.

    Args:
        resume: Go on from the newest checkpoint in --out, if there is one; the result is bitwise that of an unbroken
            run.
        overwrite: Replace the run that is in --out, once the new one takes its first step.
        dry_run: Do everything up to the first step, print the plan, and leave nothing behind.
        device: Train on cpu, cuda, cuda:1, mps, ...; by default on the accelerator, if there is one.
        max_hours: Save and stop after so many hours, to be resumed; the status is then 124.
        keep_every: Keep the checkpoint of every so many epochs for good, as checkpoints/epoch-N.ckpt; the newest two
            are kept anyway.
        zero_when_stopped: End with status 0 where a signal (otherwise 130, 143 or 129) or --max-hours (124) stopped the
            run.
        tracker: Log to a tracker of Accelerate's too: tensorboard, wandb, mlflow, comet_ml, clearml, aim.
    """

    resume: bool = False
    overwrite: bool = False
    dry_run: bool = False
    device: str | None = None
    max_hours: float | None = None
    keep_every: int | None = None
    zero_when_stopped: bool = False
    tracker: str | None = None

    def __post_init__(self) -> None:
        if self.resume and self.overwrite:
            raise ValueError("--resume goes on with a run, --overwrite replaces it: pass one of them")
