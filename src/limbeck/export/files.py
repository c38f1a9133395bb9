"""The files that are written: ONNX, torch's own .pt2, OpenVINO's; each says what a program must know of it."""

from __future__ import annotations

import json
import logging
import re
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from limbeck.export.deployed import Deployed, Run
from limbeck.export.openvino import read_openvino
from limbeck.export.ties import stable_sort

CARD = "limbeck.json"  # name of the metadata in a .pt2
OF_ONNX = ("onnx", "onnxruntime", "onnxscript")
NEEDED = {".onnx": OF_ONNX, ".pt2": (), ".xml": (*OF_ONNX, "openvino")}  # packages, by what is written


def kind_of(path: Path) -> str:
    """The ending of a file that can be written.

    Raises:
        ValueError: It is none of these, or the extra for it is not installed.
    """
    if path.suffix not in NEEDED:
        raise ValueError(f"{path} should end with {', '.join(NEEDED)}, which says what is written (.xml: of OpenVINO)")
    for needed in NEEDED[path.suffix]:
        if find_spec(needed) is None:
            extra = "openvino" if path.suffix == ".xml" else "onnx"
            raise ValueError(f"{path} needs {needed}: pip install 'limbeck[{extra}]'")
    return path.suffix


def write(program: ExportedProgram, deployed: Deployed, card: Mapping[str, Any], path: Path) -> None:
    """Write a graph with its card, as .onnx or .pt2."""
    if path.suffix == ".pt2":
        torch.export.save(program, path, extra_files={CARD: json.dumps(card)})
        return
    import onnx

    model = _translated(program, deployed)
    _name_sides(model)
    write_onnx(model, card, path)
    onnx.checker.check_model(str(path), full_check=True)


def _translated(program: ExportedProgram, deployed: Deployed) -> Any:
    """A graph as an ONNX.

    Raises:
        ValueError: ONNX has no word for something in it.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells of every operator that torchvision would add
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            made = torch.onnx.export(
                program,
                dynamo=True,
                input_names=["images"],
                output_names=list(deployed.outputs),
                custom_translation_table={torch.ops.aten.sort.stable: stable_sort},
                verbose=False,
            )
        except RuntimeError as error:  # its ConversionError is one
            reason = re.search(r"<class '[^']*'>: (.*)", str(error))
            raise ValueError(
                f"torch.onnx.export cannot translate the network ({reason[1] if reason else error}); a .pt2 "
                "needs no translation"
            ) from error
    assert made is not None
    return made.model_proto


def write_onnx(model: Any, card: Mapping[str, Any], path: Path) -> None:
    """Write an ONNX with a card, a key of its metadata each, as json."""
    import onnx

    onnx.helper.set_model_props(model, {name: json.dumps(value) for name, value in card.items()})
    onnx.save(model, path)


def _name_sides(model: Any) -> None:
    """Call the open sides of the images by their names, wherever they are."""
    sides = model.graph.input[0].type.tensor_type.shape.dim
    called = zip(sides, ("batch", "channels", "height", "width"), strict=True)
    names = {side.dim_param: name for side, name in called if side.dim_param}  # empty: not open
    values = (*model.graph.input, *model.graph.output, *model.graph.value_info)
    for side in (side for value in values for side in value.type.tensor_type.shape.dim):
        if side.dim_param in names:
            side.dim_param = names[side.dim_param]


def read(path: Path) -> tuple[Run, dict[str, Any]]:
    """What runs a file that was written, and its card.

    Raises:
        ValueError: It cannot be read, or was not written by limbeck.
    """
    if not path.is_file():
        raise ValueError(f"no file {path}")
    try:
        run, card = {".onnx": _read_onnx, ".pt2": _read_program, ".xml": read_openvino}[path.suffix](path)
    except Exception as error:  # of onnxruntime's many
        raise ValueError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    if "sha256" not in card:
        raise ValueError(f"{path} has no metadata of limbeck export")
    return run, card


def _read_onnx(path: Path) -> tuple[Run, dict[str, Any]]:
    import onnxruntime  # type: ignore[import-untyped]

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    card = {name: json.loads(value) for name, value in session.get_modelmeta().custom_metadata_map.items()}

    def run(images: Tensor) -> dict[str, Tensor]:
        values = session.run(names, {"images": images.cpu().numpy()})
        return {name: torch.from_numpy(value) for name, value in zip(names, values, strict=True)}

    return run, card


def _read_program(path: Path) -> tuple[Run, dict[str, Any]]:
    extra = {CARD: ""}
    module = torch.export.load(path, extra_files=extra).module()
    card = json.loads(extra[CARD] or "{}")

    def run(images: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            return dict(zip(card["outputs"], module(images.cpu()), strict=True))

    return run, card
