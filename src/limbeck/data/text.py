"""Text files that users write."""

from __future__ import annotations

from pathlib import Path


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, with or without a byte order mark; ``ValueError`` that names the file otherwise."""
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path} is not UTF-8: line {line} has the byte {content[error.start]:#04x}, as Latin-1 and Windows write "
            "it; save the file as UTF-8"
        ) from None
