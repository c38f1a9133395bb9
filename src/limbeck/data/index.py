"""Every image is decoded once before it is trained on; those that were sound are remembered.

An index of a folder lies in the user's cache folder (``$XDG_CACHE_HOME``, else ``~/.cache``), so data may be read-only.
An image is looked at again when its size in bytes or its time of change is another.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from limbeck.data.images import opened, read_image, upright_size
from limbeck.data.progress import track

Size = tuple[int, int]  # height and width in pixels
Entry = list[int]  # bytes, time of change in nanoseconds, height, width
VERSION = 1  # to be raised when images are read otherwise
WORTH = 256  # images looked at, from which on what was found is kept
AT_ONCE = 1024  # images that are still looked at after an interruption


def sizes_of(paths: Sequence[Path], folder: Path) -> list[Size | str]:
    """For each image its height and width, or why it cannot be used; every image is decoded unless it is remembered.

    Args:
        paths: Images, which lie in the folder or are linked there.
        folder: By which they are remembered.
    """
    file = index_of(folder)
    known = _remembered(file)
    names = [str(path) for path in paths]
    stamps = {name: stamp(name) for name in names}
    found = {name: entry for name in stamps if (entry := known.get(name)) and entry[:2] == stamps[name]}
    new = [name for name in stamps if name not in found]
    wrong: dict[str, str] = {}
    try:
        for name, size in zip(new, track(_looked_at(new), f"checking images of {folder}", len(new)), strict=True):
            stamped = stamps[name]
            if isinstance(size, str) or stamped is None:
                wrong[name] = str(size)
            else:
                found[name] = [*stamped, *size]
    finally:  # after an interruption too
        if len(new) >= WORTH:
            _remember(file, known | found)
    return [wrong[name] if name in wrong else (found[name][2], found[name][3]) for name in names]


def check_image(path: Path) -> Size | str:
    """Height and width of an image that can be decoded, or what is wrong with it."""
    try:
        with opened(path) as image:
            size = upright_size(image)
            if image.format == "JPEG" and image.mode in ("RGB", "L"):
                image.draft("L", (1, 1))  # all of the file is read, at an eighth of the size
                image.load()
                return size
        read_image(path)
    except ValueError as error:
        return str(error)
    return size


def index_of(folder: Path) -> Path:
    """Where the images of a folder are remembered."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    return cache / "limbeck" / f"images-{VERSION}-{name}.json"


def _looked_at(names: Sequence[str]) -> Iterator[Size | str]:
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(names), AT_ONCE):
            yield from pool.map(check_image, map(Path, names[start : start + AT_ONCE]))


def stamp(name: str) -> list[int] | None:
    """A file's size in bytes and its time of change in nanoseconds; ``None`` where it is gone."""
    try:
        status = os.stat(name)
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _remembered(file: Path) -> dict[str, Entry]:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    sound = isinstance(content, dict) and all(isinstance(each, list) and len(each) == 4 for each in content.values())
    return content if sound else {}  # it is made anew


def _remember(file: Path, entries: dict[str, Entry]) -> None:
    """Keep entries for the next run; where nothing can be written, it will look again."""
    if not file.is_absolute():  # of a user without a home, whose "~" stays as it is
        return
    own = file.with_suffix(f".{os.getpid()}")  # several processes may read one folder
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        own.write_text(json.dumps(entries))
        own.replace(file)
