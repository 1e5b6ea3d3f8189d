"""Writing graphs: a small .onnx file, and its weights streamed into a file beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import onnx_ir as ir

_INLINE_BYTES: Final = 256
"""Constants up to this size stay inside the .onnx file."""

Advance = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


def write_tensor(tensor: ir.TensorProtocol, folder: Path, file: str) -> ir.ExternalTensor:
    """Write one tensor's bytes as a file of their own, and refer to it there."""
    return ir.external_data.convert_tensors_to_external([tensor], folder, file)[0]


def write_graph(model: ir.Model, folder: Path, file: str, advance: Advance) -> list[str]:
    """Write `file` and `file`.data into a folder; returns both names.

    Tensors are read from the checkpoint one at a time, as they are written. Those that already lie
    in another file of the folder are referred to there.
    """
    data = f"{file}.data"
    values = [
        value
        for value in model.graph.initializers.values()
        if value.const_value is not None
        and not isinstance(value.const_value, ir.ExternalTensor)
        and value.const_value.nbytes > _INLINE_BYTES
    ]

    def report(_: ir.TensorProtocol, info: ir.external_data.CallbackInfo) -> None:
        advance(f"writing {file}", info.index + 1, info.total)

    tensors = [value.const_value for value in values if value.const_value is not None]
    written = ir.external_data.convert_tensors_to_external(tensors, folder, data, callback=report)
    for value, tensor in zip(values, written, strict=True):
        value.const_value = tensor
    ir.save(model, folder / file)
    return [file, data]
