"""OpenVINO's files, made of an ONNX: a .xml with the graph and its card, and beside it a .bin with the weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limbeck.export.deployed import Run

CARD = "framework"  # where OpenVINO keeps the metadata of an ONNX, in the rt_info


def convert(source: Path, path: Path) -> None:
    """Write an ONNX, with its card, as OpenVINO's .xml and .bin."""
    import openvino  # type: ignore[import-untyped]

    # What openvino.convert_model does, too, but for its report to OpenVINO's makers over the network.
    openvino.save_model(openvino.Core().read_model(source), path, compress_to_fp16=False)


def read_openvino(path: Path) -> tuple[Run, dict[str, Any]]:
    """What runs a .xml on the CPU, and its card."""
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    names = model.get_rt_info([CARD]).value if model.has_rt_info([CARD]) else ()
    card = {name: json.loads(model.get_rt_info([CARD, name]).value) for name in names}
    # In float32, where OpenVINO would choose bfloat16 on a CPU that has it.
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(images: Tensor) -> dict[str, Tensor]:
        values = compiled({"images": images.cpu().numpy()})
        return {name: torch.tensor(values[name]) for name in card["outputs"]}  # one may have several names

    return run, card
