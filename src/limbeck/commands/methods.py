"""What there is to choose from, and whose it is: ``limbeck methods`` and ``limbeck cite``."""

from __future__ import annotations

import re
import sys
from functools import cache
from importlib.resources import files

import torch

from limbeck.commands.arguments import call
from limbeck.commands.tables import print_table
from limbeck.commands.words import Run
from limbeck.core.match import Match
from limbeck.methods.method import FUSED, OF_SCORES, Method
from limbeck.methods.predictions import PREDICTIONS
from limbeck.methods.table import FURTHER_PAPERS, METHODS
from limbeck.models.run_folder import RunFolder

COLUMNS = ("method", "paper", "compares", "read at", "projector", "weight", "published with", "cost: parameters")


def methods(arguments: list[str]) -> None:
    """Every method."""
    call(_methods, "limbeck methods", arguments)


def _methods(markdown: bool = False) -> None:
    """List the methods that --method takes: paper, what is compared, and what is used unless you say otherwise.

    The cost is the number of parameters of projector and criterion that are trained beside the student, between 256 and
    256 channels; they are dropped afterwards. Time and memory of each: benchmarks/criterion.py.

    Args:
        markdown: As a Markdown table.
    """
    rows = [row_of(name, method) for name, method in METHODS.items()]
    if markdown:
        print("\n".join("| " + " | ".join(row) + " |" for row in [COLUMNS, ["---"] * len(COLUMNS), *rows]))
        return
    print_table(COLUMNS, rows)


def row_of(name: str, method: Method) -> list[str]:
    projector = method.projector.__name__ if method.projector else ""
    weight = f"{method.weight:g}" if isinstance(method.weight, float) else str(method.weight)
    trained = f"{trained_parameters(method):,}"
    return [name, source(method.paper), method.compares, method.reads, projector, weight, method.published, trained]


def trained_parameters(method: Method) -> int:
    """Of projector and criterion, between maps of 256 channels, three where several are fused; none of predictions."""
    if method.reads in PREDICTIONS:
        return 0
    feature, scores = torch.zeros(2, 256, 8, 8), torch.zeros(2, 10)
    together = method.reads in FUSED
    student = scores if method.reads in ("output", "distillation-head") else (feature,) * 3 if together else feature
    match = Match("", "", method.criterion(), projector=method.projector)
    match.build(student, scores if method.reads in OF_SCORES else student)
    return sum(parameter.numel() for parameter in match.parameters())


def source(key: str) -> str:
    """Where a paper is: its arXiv number, or its address."""
    fields = dict(re.findall(r"(eprint|url) = {(.*)}", bibliography()[key]))
    return f"arXiv {fields['eprint']}" if "eprint" in fields else fields["url"]


@cache
def bibliography() -> dict[str, str]:
    """BibTeX entries by key."""
    entries = (files("limbeck.methods") / "methods.bib").read_text().strip().split("\n\n")
    return {entry.partition("{")[2].partition(",")[0]: entry for entry in entries}


def cite(arguments: list[str]) -> None:
    """The papers of a run."""
    call(_cite, "limbeck cite", arguments)


def _cite(run: Run, /) -> None:
    """Print the BibTeX of the methods that a run used, and of limbeck.

    Args:
        run: Folder of a run.
    """
    record = RunFolder(run).read_record()
    if "uses" not in record:
        raise ValueError(f"{RunFolder(run).record} does not say which methods the run used")
    entries, unknown = cited(record["uses"])
    for name in unknown:
        print(f"limbeck: {name} is not limbeck's own; name its source yourself", file=sys.stderr)
    print("\n\n".join(entries))


def cited(used: list[str]) -> tuple[list[str], list[str]]:
    """BibTeX entries of what a run used, and of limbeck; and what of it is not limbeck's own."""
    papers = {name: method.paper for name, method in METHODS.items()} | FURTHER_PAPERS
    keys = dict.fromkeys(papers[name] for name in used if name in papers)
    entries = bibliography()
    return [entries[key] for key in [*keys, "limbeck"]], [name for name in used if name not in papers]
