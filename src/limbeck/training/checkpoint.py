"""Checkpoints that survive being killed at any moment.

A file is one digest and what it is a digest of. It is written under a temporary name, synced, then renamed; the one
before it stays until then and after. A damaged one is told by its digest, and the one before is used.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from pathlib import Path
from typing import Any

import torch

KEEP = 2
DIGEST = hashlib.sha256().digest_size


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write ``step-N.ckpt``, and remove all but the newest ``KEEP``.

    Args:
        state: Tensors, numbers, strings, and lists and dicts of them.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    path = folder / f"step-{step:08d}.ckpt"
    write_atomically(path, hashlib.sha256(payload).digest() + payload)
    for old in newest_first(folder)[KEEP:]:
        old.unlink()
    return path


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all; ``OSError`` names it where the disk does not take it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(
            error.errno, f"cannot write {path} ({error.strerror}); what was there before is as it was"
        ) from None


def _sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, too; Windows opens no folders, and needs it not."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load_checkpoint(folder: Path) -> tuple[Path, dict[str, Any], list[str]] | None:
    """The newest whole checkpoint: its path, its state, and a line for each damaged one passed over.

    ``None`` where there is no checkpoint at all.

    Raises:
        ValueError: There are checkpoints, all damaged.
    """
    damaged: list[str] = []
    for path in newest_first(folder):
        content = path.read_bytes()
        digest, payload = content[:DIGEST], content[DIGEST:]
        if hashlib.sha256(payload).digest() == digest:
            return path, _tensors_and_numbers(path, payload), damaged
        damaged.append(f"{path} is damaged (its checksum does not fit); using the one before")
    if damaged:
        raise ValueError(f"every checkpoint in {folder} is damaged; start again with another --out")
    return None


def _tensors_and_numbers(path: Path, payload: bytes) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError):
        raise ValueError(f"{path} is no checkpoint of tensors and numbers alone, so it is not loaded") from None
    return state


def newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.ckpt"), reverse=True)
