"""One process at a time writes into a run folder."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import IO

from limbeck.models.run_folder import RunFolder


def check_place(folder: RunFolder) -> None:
    """Look whether the folder can be made and written to, without making it.

    Raises:
        ValueError: It cannot.
    """
    place = next(path for path in (folder.path, *folder.path.absolute().parents) if path.exists())
    if not place.is_dir():
        raise ValueError(f"{folder} cannot be a folder, since {place} is a file; choose another --out")
    if not os.access(place, os.W_OK):
        raise ValueError(f"{folder} cannot be written, since {place} is not writable; choose another --out")


@contextmanager
def held(folder: RunFolder, say: Callable[[str], None]) -> Iterator[None]:
    """Hold a run folder, which is made if need be; if nothing came to lie in it, it is removed afterwards.

    The operating system gives the lock back when its process ends, however it ends, so a stale one cannot be: what a
    killed process wrote into the file is no lock. Loader processes do not inherit it.

    Raises:
        BlockingIOError: Another process holds it, which the message names.
    """
    made = [path for path in (folder.path, *folder.path.parents) if not path.exists()]
    folder.path.mkdir(parents=True, exist_ok=True)
    with folder.lock.open("a+") as file:
        try:
            _lock(file)
        except (BlockingIOError, PermissionError):
            raise BlockingIOError(f"{folder} is in use by {_holder(file)}; choose another --out, or end that") from None
        except OSError as error:  # a network's file system may have no locks
            say(f"{folder} cannot be locked ({error.strerror}); see to it that no other process writes into it")
        file.truncate(0)
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        file.write(json.dumps({"process": os.getpid(), "host": socket.gethostname(), "since": now}))
        file.flush()
        try:
            yield
        finally:
            if {path.name for path in folder.path.iterdir()} == {folder.lock.name}:
                folder.lock.unlink()
                with suppress(OSError):  # others may have put something beside it, which would hide the run's own error
                    for path in made:  # the innermost first
                        path.rmdir()


def _lock(file: IO[str]) -> None:
    if os.name == "nt":
        import msvcrt

        file.seek(1 << 20)  # not what others read
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    else:
        import fcntl

        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not flock, which forked loader processes would hold, too


def _holder(file: IO[str]) -> str:
    file.seek(0)
    try:
        holder = json.loads(file.read())
        return f"process {holder['process']} on {holder['host']} since {holder['since']}"
    except (ValueError, KeyError):  # it is about to write it
        return "another process"
