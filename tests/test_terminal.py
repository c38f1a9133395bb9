"""Commands as a person meets them: on a pseudo terminal."""

import os
import pty
import sys


def on_terminal(*arguments):
    """The exit status of a command on a pseudo terminal, and all that it wrote there."""
    written = []

    def read(descriptor):
        written.append(os.read(descriptor, 4096))
        return written[-1]

    status = pty.spawn([sys.executable, "-m", "limbeck", *arguments], read)
    return os.waitstatus_to_exitcode(status), b"".join(written).decode()


def test_a_run_on_a_terminal_ends_well(tmp_path):
    data = ("--data", "digits", "--images", "64", "--batch-size", "32", "--size", "8", "--augment", "none")
    options = (*data, "--model", "tests/nets.py:small", "--epochs", "2", "--workers", "0")
    status, shown = on_terminal("train", "classification", *options, "--out", str(tmp_path / "run"))
    assert status == 0, shown
    assert "epoch 2/2" in shown
    assert "Traceback" not in shown
