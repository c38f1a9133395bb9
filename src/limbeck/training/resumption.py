"""Going on from a checkpoint: what has to be as it was, and what a change of it means."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from limbeck.models.run_folder import RunFolder
from limbeck.training.fingerprint import check_same
from limbeck.training.loaders import Loaders
from limbeck.training.state import State


def restore(
    state: State,
    path: Path,
    stored: dict[str, Any],
    folder: RunFolder,
    fingerprint: dict[str, Any],
    loaders: Loaders,
) -> list[str]:
    """Bring a run to the state of a checkpoint, and give what is to be said of it.

    Raises:
        ValueError: The checkpoint is of another run, or of a longer one.
    """
    try:
        check_same(stored["run"], fingerprint, str(folder))
        news = _differences(stored, folder, loaders.total_steps, loaders.accelerator.num_processes)
        state.load_state_dict(stored)
        if stored["steps"] < loaders.total_steps:  # a run may have ended in the middle of an epoch
            state.epoch = min(state.epoch, state.step // loaders.steps_per_epoch)
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"{path} is no checkpoint of this run: {error}") from None
    return news


def _differences(stored: Mapping[str, Any], folder: RunFolder, steps: int, processes: int) -> list[str]:
    """Refuse a shorter run, and say what a longer one or other processes mean."""
    news = []
    before = stored["steps"]
    if steps < before:
        raise ValueError(f"{folder} was started for {before} steps; it can be resumed for more, not for {steps}")
    if steps > before:
        news.append(
            f"extended from {before} to {steps} steps: from step {stored['step'] + 1} on the learning rate is that of "
            "the longer run, so this is not what a run of that length from the beginning gives"
        )
    if stored["processes"] != processes:
        news.append(
            f"resumed on {processes} processes, after {stored['processes']}: batch norms, random numbers and rounding "
            "differ from those of an unbroken run"
        )
    return news
