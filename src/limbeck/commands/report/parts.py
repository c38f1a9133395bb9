"""What a page is made of: sections of text, tables, charts and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Table:
    """Cells of text; the columns from ``numbers`` on are aligned as numbers."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: int = 1
    kind: str = "table"


@dataclass(frozen=True)
class Chart:
    """A Vega-Lite specification, with a title that stands above it."""

    title: str
    spec: dict[str, Any]
    note: str = ""
    wide: bool = False
    kind: str = "chart"


@dataclass(frozen=True)
class Legend:
    """Colours by what they stand for."""

    colours: Sequence[tuple[str, str]]
    kind: str = "legend"


@dataclass(frozen=True)
class Pictures:
    """Rows of pictures, as data URIs, below the titles of their columns."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    kind: str = "pictures"


@dataclass(frozen=True)
class Text:
    """A paragraph; verbatim where it is code."""

    text: str
    title: str = ""
    is_code: bool = False
    kind: str = "text"


Part = Table | Chart | Legend | Pictures | Text


@dataclass(frozen=True)
class Section:
    """A part of the page, with what it shows and how that is computed."""

    title: str
    about: str = ""
    parts: Sequence[Part] = field(default_factory=list)
