"""A student as a graph, by torch.export."""

from __future__ import annotations

import re
import warnings

import torch
from torch.export import Dim, ExportedProgram

from limbeck.export.deployed import Deployed

EXAMPLE = (160, 224)  # height and width in pixels of the traced image, where any may be: not square, on purpose
OTHER = (224, 288)  # of another image, on which the graph is tried
TRACED = 2  # images, where their number is left open: of one, torch takes the 1 for a constant
ASSERTS = torch.ops.aten._assert_scalar.default


def program_of(deployed: Deployed, batch: int | None) -> ExportedProgram:
    """A student as a graph for any number of images, or for ``batch`` of them.

    Raises:
        ValueError: torch.export cannot follow it, or only for a fixed number of images, or for images of a fixed size.
    """
    try:
        program = _traced(deployed, batch, strict=False)
    except Exception as error:  # of many types, also by what the network itself raises
        if not _constants(error):
            raise ValueError(_reason(error, batch)) from error
        # The network asks for len() or int() of a size, which only the slower tracer of torch.compile leaves open.
        try:
            program = _traced(deployed, batch, strict=True)
        except Exception:  # what it does not know says less than the constant
            raise ValueError(_reason(error, batch)) from error
    _remove_assertions(program)
    return program


def _traced(deployed: Deployed, batch: int | None, strict: bool) -> ExportedProgram:
    """A graph that was tried on images of another size, where any may be: a size may become a constant in silence."""
    dynamic = {0: Dim.DYNAMIC} if batch is None else {}  # not AUTO, which makes a constant of it without a word
    if deployed.size is None:
        dynamic |= {2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    count, noise = batch or TRACED, torch.Generator().manual_seed(0)
    example = torch.rand(count, 3, *(deployed.size or EXAMPLE), generator=noise)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about its own parts
        program = torch.export.export(deployed.module, (example,), dynamic_shapes=(dynamic,), strict=strict)
        if deployed.size is None:
            program.module()(torch.rand(count, 3, *OTHER, generator=noise))
    return program


def _remove_assertions(program: ExportedProgram) -> None:
    """Leave out what a network asserts of numbers, which ONNX has no word for; the file is compared instead."""
    graph = program.graph
    needed: set[torch.fx.Node] = set()
    for node in reversed(list(graph.nodes)):
        # What only the assertion needed goes with it: torch keeps item() as if it did something.
        unused = node in needed and not node.users and node.op == "call_function"
        if node.target is ASSERTS or unused:
            needed.update(node.all_input_nodes)
            graph.erase_node(node)
    program.graph_module.recompile()


def _constants(error: Exception) -> set[str]:
    """The sides of the images, 0 to 3, of which constants were made."""
    return set(re.findall(r"size\(\)\[(\d)\]", str(error)))


def _reason(error: Exception, batch: int | None) -> str:
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")
    fixed = _constants(error)
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
