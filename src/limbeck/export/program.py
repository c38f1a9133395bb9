"""A student as a graph, by torch.export."""

from __future__ import annotations

import re

import torch
from torch.export import Dim, ExportedProgram

from limbeck.export.deployed import Deployed

EXAMPLE = (160, 224)  # height and width in pixels of the traced image, where any may be: not square, on purpose
TRACED = 2  # images, where their number is left open: of one, torch takes the 1 for a constant


def program_of(deployed: Deployed, batch: int | None) -> ExportedProgram:
    """A student as a graph for any number of images, or for ``batch`` of them.

    Raises:
        ValueError: torch.export cannot follow it, or only for a fixed number of images, or for images of a fixed size.
    """
    height, width = deployed.size or EXAMPLE
    example = torch.rand(batch or TRACED, 3, height, width, generator=torch.Generator().manual_seed(0))
    dynamic = {0: Dim.DYNAMIC} if batch is None else {}  # not AUTO, which makes a constant of it without a word
    if deployed.size is None:
        dynamic |= {2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    try:
        with torch.no_grad():
            return torch.export.export(deployed.module, (example,), dynamic_shapes=(dynamic,))
    except Exception as error:  # of many types, also by what the network itself raises
        raise ValueError(_reason(str(error), batch)) from error


def _reason(error: str, batch: int | None) -> str:
    first = next((line.strip() for line in error.splitlines() if line.strip()), "no reason given")
    fixed = set(re.findall(r"size\(\)\[(\d)\]", error))
    if "0" in fixed and batch is None:
        return (
            "its number of images cannot be left open, since the network makes a constant of it: write a file for one "
            f"image at a time with --batch 1 ({first})"
        )
    if fixed & {"2", "3"}:
        return (
            "its image size cannot be left open, since the network makes a constant of it: fix it, in pixels, such as "
            f"with --size 480 640 ({first})"
        )
    return f"torch.export cannot follow the network: {first}"
