"""Pages that are made: one a method from the table of methods, and the library's public names."""

import re
from pathlib import Path

import limbeck
from limbeck import criteria
from limbeck.commands.methods import COLUMNS, bibliography, row_of
from limbeck.methods.predictions import PREDICTIONS
from limbeck.methods.table import METHODS

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
MEASURED = {"CIFAR-10": "quality_cifar10.md", "CamVid": "quality_camvid.md", "BCCD": "quality_bccd.md"}


def write(folder: Path) -> None:
    """Write all pages into a folder, where they have changed."""
    _write(folder / "api.md", api())
    for name in METHODS:
        _write(folder / "methods" / f"{name}.md", method_page(name))
    for path in sorted(RESULTS.glob("*.md")):
        _write(folder / "results" / path.name, result_page(path))
    links = "\n".join(f"methods/{name}" for name in METHODS)
    _write(folder / "methods.md", f"# Each method\n\n```{{toctree}}\n{links}\n```\n")


def result_page(path: Path) -> str:
    """What a benchmark printed, with the links that lead from where it will lie."""
    text = path.read_text().replace("](../../docs/", "](../../")
    return re.sub(r"\]\(\.\./(?!\.\.)", "](../../../benchmarks/", text)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or path.read_text() != text:
        path.write_text(text)


def method_page(name: str) -> str:
    """What the table says of a method, its formula and shapes, what was measured, and its paper."""
    method = METHODS[name]
    task = "detection" if method.reads in (*PREDICTIONS, "named") else "classification"
    facts = dict(zip(COLUMNS, row_of(name, method), strict=True))
    shown = {key: facts[key] for key in COLUMNS[1:] if facts[key]}
    rows = "\n".join(f"| {key} | {value} |" for key, value in shown.items())
    criterion = getattr(method.criterion, "__name__", name)
    own = documented([f"limbeck.criteria.{criterion}"]) if hasattr(criteria, criterion) else f"`torch.nn.{criterion}`."
    return f"""# {name}

    limbeck distill {task} --data DIR --teacher TEACHER --student STUDENT --method {name} --out RUN

| | |
|---|---|
{rows}

## Formula and shapes

{own}

## What we measured

{measured(name)}

## Paper

```bibtex
{bibliography()[method.paper]}
```
"""


def measured(name: str) -> str:
    """The rows of a method in the tables of results, beside the student alone."""
    found = []
    for data, file in MEASURED.items():
        lines = [line for line in (RESULTS / file).read_text().splitlines() if line.startswith("|")]
        rows = [line for line in lines if first_cell(line) in (name, "alone")]
        if any(first_cell(line) == name for line in rows):
            found.append(f"{data} ([all rows, and how](../results/{file})):\n")
            found.append("\n".join([*lines[:2], *rows]) + "\n")
    return "\n".join(found) or "Nothing yet: this method is in none of our tables."


def first_cell(row: str) -> str:
    """The method that a row is of, without its options."""
    return row.split("|")[1].strip().partition(",")[0]


def api() -> str:
    """The public names, as they are imported."""
    own = [name for name in limbeck.__all__ if name != "criteria"]
    links = "\n".join(f"- [{name}](methods/{name}.md)" for name in criteria.__all__)
    return f"""# The library

`from limbeck import Distiller, Match, ...`

{documented([f"limbeck.{name}" for name in own])}

## Criteria

`from limbeck.criteria import ChannelTransform, ...`: each is on the page of its method.

{links}
"""


def documented(names: list[str]) -> str:
    """Docstrings by autodoc."""
    directives = "\n\n".join(
        f".. autoclass:: {name}\n   :members:" if isinstance(_of(name), type) else f".. autofunction:: {name}"
        for name in names
    )
    return f"```{{eval-rst}}\n{directives}\n```"


def _of(name: str) -> object:
    *place, last = name.split(".")
    return getattr(criteria if place[-1] == "criteria" else limbeck, last)
