"""An ONNX in half precision or in integers of 8 bits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
from torch import Tensor

QUANTISED = ["Conv", "MatMul", "Gemm"]  # what takes the time; all else, such as boxes in pixels, stays in float32


def to_half(path: Path) -> Any:
    """The ONNX in a file with float16 inside; it takes and gives float32."""
    from onnxruntime.transformers.float16 import convert_float_to_float16  # type: ignore[import-untyped]

    return convert_float_to_float16(onnx.load(path), keep_io_types=True)


def to_int8(path: Path, batches: Sequence[Tensor]) -> Any:
    """The ONNX in a file with weights and activations of convolutions and products in int8.

    Args:
        path: Of an ONNX in float32.
        batches: Images (B, 3, H, W) in [0, 1], by which the range of each activation is found.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static  # type: ignore[import-untyped]
    from onnxruntime.quantization.shape_inference import quant_pre_process  # type: ignore[import-untyped]

    prepared, written = (path.with_suffix(f".{name}.onnx") for name in ("prepared", "int8"))
    try:
        quant_pre_process(path, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            written,
            _Reader(batches),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=QUANTISED,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(written)
    finally:
        for file in (prepared, written):
            file.unlink(missing_ok=True)


class _Reader:
    """Gives onnxruntime one batch after another."""

    def __init__(self, batches: Sequence[Tensor]):
        self.left: Iterator[Tensor] = iter(batches)

    def get_next(self) -> dict[str, Any] | None:
        images = next(self.left, None)
        return None if images is None else {"images": images.numpy()}
