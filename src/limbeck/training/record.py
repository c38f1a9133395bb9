"""What a run writes down while it goes: metrics.jsonl, and students as safetensors with a card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import nn

from limbeck.training.checkpoint import write_atomically


def log(path: Path, kind: str, step: int, epoch: int, values: Mapping[str, Any]) -> None:
    """Append a line."""
    with path.open("a") as file:
        file.write(json.dumps({"kind": kind, "step": step, "epoch": epoch, **values}) + "\n")


def drop_after(path: Path, step: int, epoch: int) -> None:
    """Keep of a log what was written before a checkpoint: what came after is about to be written again."""
    if path.is_file():
        lines = [line for line in path.read_text().splitlines() if _is_before(line, step, epoch)]
        write_atomically(path, "".join(line + "\n" for line in lines).encode())


def _is_before(line: str, step: int, epoch: int) -> bool:
    try:
        entry = json.loads(line)
    except ValueError:  # cut short by a kill
        return False
    return bool(entry["step"] <= step and entry["epoch"] <= epoch)


def save_student(student: nn.Module, path: Path, card: dict[str, Any]) -> None:
    """Write the student's tensors alone, with what another program must know to use them in the file's metadata."""
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in student.state_dict().items()}
    write_atomically(path, safetensors.torch.save(tensors, {"limbeck": json.dumps(card)}))
