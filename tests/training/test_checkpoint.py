import errno
import os

import pytest
import torch

from limbeck.cli import main
from limbeck.training.checkpoint import load_checkpoint, save_checkpoint


def state(step):
    return {"step": step, "model": {"weight": torch.full((3,), float(step))}, "best": {"top1": 0.5}, "ema": None}


def test_the_newest_of_two_kept_checkpoints_is_loaded(tmp_path):
    for step in (1, 2, 30):
        save_checkpoint(tmp_path, step, state(step))
    path, loaded, damaged = load_checkpoint(tmp_path)
    assert path.name == "step-00000030.ckpt"
    assert loaded["model"]["weight"].tolist() == [30.0] * 3
    assert loaded["best"] == {"top1": 0.5}
    assert not damaged
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("harm", [lambda content: content[:-9], lambda content: content[:50] + b"x" + content[51:]])
def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(tmp_path, harm):
    save_checkpoint(tmp_path, 1, state(1))
    newest = save_checkpoint(tmp_path, 2, state(2))
    newest.write_bytes(harm(newest.read_bytes()))
    _, loaded, damaged = load_checkpoint(tmp_path)
    assert loaded["step"] == 1
    assert "step-00000002.ckpt is damaged" in damaged[0]


def test_nothing_is_none_and_only_damage_is_an_error(tmp_path):
    assert load_checkpoint(tmp_path) is None
    save_checkpoint(tmp_path, 1, state(1)).write_bytes(b"")
    with pytest.raises(ValueError, match=r"every checkpoint .* is damaged"):
        load_checkpoint(tmp_path)


def test_a_full_disk_is_an_error_that_names_the_file_and_keeps_what_was_there(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, 1, state(1))

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"cannot write .*step-00000002\.ckpt \(No space left on device\)"):
        save_checkpoint(tmp_path, 2, state(2))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001.ckpt"]


def test_a_run_needs_to_open_no_folder_as_on_windows(tmp_path, monkeypatch):
    refused = []

    def as_windows(path, *arguments, **options):
        if os.path.isdir(path):
            refused.append(path)
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, *arguments, **options)

    opened = os.open
    monkeypatch.setattr(os, "open", as_windows)
    short = ("--images", "64", "--batch-size", "32", "--size", "8", "--augment", "none", "--epochs", "1")
    start = ["train", "classification", "--data", "digits", "--model", "tests/nets.py:small", *short]
    main([*start, "--workers", "0", "--out", str(tmp_path / "run")])
    main([*start, "--workers", "0", "--out", str(tmp_path / "run"), "--resume"])
    assert refused, "the folder of the checkpoints was to be synced"
    assert load_checkpoint(tmp_path / "run" / "checkpoints")
    assert (tmp_path / "run" / "student.safetensors").is_file()
