"""How matrices can be stored and multiplied by: one rule for each form, in one table.

Weights are lazy: each form reads, converts and packs a checkpoint's tensors when the graph is
written, so no more than one is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from export.graphs.rows import Array, lazy_tensor
from export.lowering.emitter import CONTRIB, Emitter
from export.lowering.passes import Rule
from export.lowering.rounding import LARGEST, blocks, quantised, steps, summable_steps
from idetex_edge.errors import ExportError


@dataclass(frozen=True, slots=True)
class Matrix:
    """A Linear to be emitted: its input, its weight [outputs, inputs] in float32, and its bias.

    step: of the input's 8-bit numbers, for forms that need it calibrated; else 0.
    """

    name: str
    x: ir.Value
    weight: ir.TensorProtocol
    bias: ir.Value | None
    step: float = 0.0

    @property
    def shape(self) -> tuple[int, int]:
        """(outputs, inputs)."""
        outputs, inputs = self.weight.shape.numpy()
        return outputs, inputs

    def read(self) -> Array:
        """Read the weight."""
        return np.asarray(self.weight.numpy(), np.float32)

    def stored(
        self,
        emit: Emitter,
        pack: Callable[[Array], npt.NDArray[Any]],
        kind: npt.DTypeLike | ir.DataType,
        shape: Sequence[int],
        part: str,
    ) -> ir.Value:
        """Register what `pack` makes of the weight, computed when it is written."""
        name = f"{self.name}.{part}"
        return emit.weight(lazy_tensor(lambda: pack(self.read()), kind, shape, name), name)


Form = Callable[[Emitter, Matrix], ir.Value]


def linear_rule(choose: Callable[[str], tuple[str, float]]) -> Rule:
    """Make the rule for Linear nodes: `choose` gives (form, input step) by name."""

    def rule(emit: Emitter, node: ir.Node, floats: ir.DataType) -> Sequence[ir.Value]:
        x, weight, *bias = node.inputs
        name = node.name
        assert name is not None
        assert x is not None
        assert weight is not None
        assert weight.const_value is not None
        form, step = choose(name)
        matrix = Matrix(name, x, weight.const_value, bias[0] if bias else None, step)
        return (FORMS[form](emit, matrix),)

    return rule


def _float32(emit: Emitter, m: Matrix) -> ir.Value:
    weight = m.stored(emit, np.transpose, np.float32, m.shape[::-1], "float32")
    return _add(emit, emit.one("MatMul", m.x, weight, name=m.name), m.bias)


def _float16(emit: Emitter, m: Matrix) -> ir.Value:
    """Multiply in FP16; bias and what follows are FP32. Raises ExportError where W overflows."""

    def pack(w: Array) -> npt.NDArray[np.float16]:
        if np.abs(w).max() > np.finfo(np.float16).max:
            raise ExportError(f"{m.name} has weights beyond FP16's range; choose another precision")
        return w.T.astype(np.float16)

    weight = m.stored(emit, pack, np.float16, m.shape[::-1], "float16")
    narrow = emit.to(m.x, ir.DataType.FLOAT16)
    return _add(emit, _widened(emit, emit.one("MatMul", narrow, weight, name=m.name)), m.bias)


def _dynamic_int8(emit: Emitter, m: Matrix) -> ir.Value:
    """W in 8 bits with a scale for each output, x with one for all of it.

    The fastest form for many rows. A row's result depends on its neighbours' range, so what goes
    through one call must belong together, as the patches of a picture do. Matrices that read the
    same x, as q, k and v do, share its rounding: the lowering makes one of equal nodes.
    """
    codes, scale = _summable(emit, m)
    rounded, step, zero = emit.many(3, "DynamicQuantizeLinear", m.x)
    return emit.one(
        *("MatMulIntegerToFloat", rounded, codes, step, scale, zero, None, m.bias),
        domain=CONTRIB,
        name=m.name,
    )


def _row_int8(emit: Emitter, m: Matrix) -> ir.Value:
    """W in 8 bits with a scale for each output, every row of x with its own.

    Each row's result is its own, whatever it is batched with, and many rows are multiplied as fast
    as integers can be: 3 to 4 times as fast as in blocks from 100 rows on, and no slower from 4.
    """
    codes, scale = _summable(emit, m)
    # A row of zeros is divided by zero, rounded to some number, and multiplied by zero again.
    largest = emit.one("ReduceMax", emit.one("Abs", m.x), emit.longs(-1), keepdims=1)
    step = emit.constant(np.array(1 / LARGEST, np.float32))
    middle = emit.constant(np.array(128, np.uint8))
    rounded = emit.one("QuantizeLinear", emit.one("Div", m.x, largest), step, middle)
    product = emit.one(
        *("MatMulIntegerToFloat", rounded, codes, step, scale, middle), domain=CONTRIB, name=m.name
    )
    return _add(emit, emit.one("Mul", product, largest), m.bias)


_BEHIND_NORMS: Final = (".qkv", ".gate_proj", ".up_proj", ".fc1")
"""Matrices that read a block's norm, whose rows are all of one size."""


def _picture_int8(emit: Emitter, m: Matrix) -> ir.Value:
    """One scale for all patches of a picture where they are alike, else one for each."""
    alike = any(part in m.name for part in _BEHIND_NORMS)
    return (_dynamic_int8 if alike else _row_int8)(emit, m)


def _block_bits(bits: int, block: int, accuracy: int) -> Form:
    """W in 4 or 8 bits with a scale for every `block` of a row; x rounded alike at accuracy 4.

    Each row's result is its own, whatever it is batched with.
    """
    limit, middle = 2 ** (bits - 1) - 1, 2 ** (bits - 1)

    def form(emit: Emitter, m: Matrix) -> ir.Value:
        outputs, inputs = m.shape
        count = -(-inputs // block)

        def codes(w: Array) -> npt.NDArray[np.uint8]:
            whole = (quantised(blocks(w, block), limit).astype(np.int16) + middle).astype(np.uint8)
            return whole if bits == 8 else whole[..., ::2] | (whole[..., 1::2] << 4)

        shape = (outputs, count, block * bits // 8)
        packed = m.stored(emit, codes, np.uint8, shape, f"int{bits}")
        scale = m.stored(
            emit,
            lambda w: steps(blocks(w, block), limit)[..., 0],
            *(np.float32, (outputs, count), "scale"),
        )
        return emit.one(
            *("MatMulNBits", m.x, packed, scale, None, None, m.bias),
            domain=CONTRIB,
            name=m.name,
            K=inputs,
            N=outputs,
            bits=bits,
            block_size=block,
            accuracy_level=accuracy,
        )

    return form


def _stored_int8(emit: Emitter, m: Matrix) -> ir.Value:
    """W in 8 bits with a scale for each output, multiplied by in FP16: weight-only."""
    weight = _dequantised_int8(emit, m, np.float16)
    narrow = emit.to(m.x, ir.DataType.FLOAT16)
    return _add(emit, _widened(emit, emit.one("MatMul", narrow, weight, name=m.name)), m.bias)


def _stored_blocks(kind: ir.DataType, block: int, floats: npt.DTypeLike) -> Form:
    """W in whole numbers with a scale for every `block` of a row, dequantised by the graph.

    Where `block` does not divide the row, zeros follow it, and x as well.
    """
    limit = {ir.DataType.INT4: 7, ir.DataType.INT8: LARGEST}[kind]
    small = {ir.DataType.INT4: ml_dtypes.int4, ir.DataType.INT8: np.int8}[kind]
    half = np.dtype(floats) == np.float16

    def form(emit: Emitter, m: Matrix) -> ir.Value:
        outputs, inputs = m.shape
        count = -(-inputs // block)

        def codes(w: Array) -> npt.NDArray[np.generic]:
            whole = quantised(blocks(w, block), limit)
            return np.ascontiguousarray(whole.reshape(outputs, count * block).T).astype(small)

        packed = m.stored(emit, codes, kind, (count * block, outputs), kind.name.lower())
        scale = m.stored(
            emit,
            lambda w: np.transpose(steps(blocks(w, block), limit)[..., 0]).astype(floats),
            *(floats, (count, outputs), "scale"),
        )
        weight = emit.one("DequantizeLinear", packed, scale, axis=0, block_size=block)
        x = emit.to(m.x, ir.DataType.FLOAT16) if half else m.x
        if more := count * block - inputs:
            x = emit.one("Pad", x, emit.longs(0, more), None, emit.longs(-1))
        product = emit.one("MatMul", x, weight, name=m.name)
        return _add(emit, _widened(emit, product) if half else product, m.bias)

    return form


def _static_int8(floats: npt.DTypeLike) -> Form:
    """Explicit symmetric Q/DQ: x by its calibrated step, W by a scale for each output."""
    half = np.dtype(floats) == np.float16

    def form(emit: Emitter, m: Matrix) -> ir.Value:
        if m.step <= 0:
            raise ExportError(f"{m.name} has no calibrated range; calibrate with --calibration")
        # Below FP16's normal numbers a step would lose its digits, and at last be zero.
        least = float(np.finfo(np.float16).tiny) if half else 0.0
        step = emit.constant(np.array(max(m.step, least), floats))
        zero = emit.constant(np.array(0, np.int8))
        x = emit.to(m.x, ir.DataType.FLOAT16) if half else m.x
        rounded = emit.one("QuantizeLinear", x, step, zero)
        weight = _dequantised_int8(emit, m, floats)
        product = emit.one(
            "MatMul", emit.one("DequantizeLinear", rounded, step, zero), weight, name=m.name
        )
        return _add(emit, _widened(emit, product) if half else product, m.bias)

    return form


def _dequantised_int8(emit: Emitter, m: Matrix, floats: npt.DTypeLike) -> ir.Value:
    codes = m.stored(
        emit, lambda w: np.transpose(quantised(w, LARGEST)), np.int8, m.shape[::-1], "int8"
    )
    scale = m.stored(
        emit, lambda w: steps(w, LARGEST)[:, 0].astype(floats), floats, m.shape[:1], "scale"
    )
    return emit.one("DequantizeLinear", codes, scale, axis=1)


def _add(emit: Emitter, product: ir.Value, bias: ir.Value | None) -> ir.Value:
    return product if bias is None else emit.one("Add", product, bias)


def _widened(emit: Emitter, product: ir.Value) -> ir.Value:
    product.type = ir.TensorType(ir.DataType.FLOAT16)
    return emit.to(product, ir.DataType.FLOAT)


def _summable(emit: Emitter, m: Matrix) -> tuple[ir.Value, ir.Value]:
    """W in 8 bits by `summable_steps`, [inputs, outputs], and its scale for each output."""

    def codes(w: Array) -> npt.NDArray[np.int8]:
        return np.rint(w / summable_steps(w)).astype(np.int8).T

    return (
        m.stored(emit, codes, np.int8, m.shape[::-1], "int8"),
        m.stored(emit, lambda w: summable_steps(w)[:, 0], np.float32, m.shape[:1], "scale"),
    )


FORMS: Final[Mapping[str, Form]] = {
    "float32": _float32,
    "float16": _float16,
    "dynamic_int8": _dynamic_int8,
    "row_int8": _row_int8,
    "picture_int8": _picture_int8,
    "block_int8": _block_bits(8, 64, 4),
    "block_int4_128": _block_bits(4, 128, 4),
    "block_int4_32": _block_bits(4, 32, 4),
    "static_int8": _static_int8(np.float32),
    "static_int8_float16": _static_int8(np.float16),
    "stored_int8_float16": _stored_int8,
    "stored_int8_32": _stored_blocks(ir.DataType.INT8, 32, np.float32),
    "stored_int4_128": _stored_blocks(ir.DataType.INT4, 128, np.float32),
    "stored_int4_32": _stored_blocks(ir.DataType.INT4, 32, np.float32),
    "stored_int4_128_float16": _stored_blocks(ir.DataType.INT4, 128, np.float16),
}
"""Every form by name. `stored`: whole numbers that the graph itself dequantises; `block`: those of
ONNX Runtime's own kernels; `static`: calibrated Q/DQ around the product."""
