"""The few PTX instructions of `kernels/widen.py`, on numpy arrays: the interpreter has none.

Registers hold 32 bits of every group of elements at once. What an instruction does is NVIDIA's PTX
ISA, sections of `prmt`, `sub.f16x2` and the logic instructions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Register = npt.NDArray[np.uint32]


def run_inline(
    source: str, outputs: int, inputs: Sequence[npt.NDArray[Any]], pack: int
) -> list[Register]:
    """Run inline PTX on arrays of elements, `pack` of them to a group; its output registers.

    Inputs are $outputs, $outputs + 1 and so on, outputs $0, $1...
    """
    registers: dict[str, Register] = {}
    for i, array in enumerate(inputs):
        packed = np.ascontiguousarray(array).ravel().view(np.uint32)
        assert array.dtype.itemsize * pack == 4, "one register holds a group"
        registers[f"${outputs + i}"] = packed
    for statement in source.strip("{} \n").split(";"):
        words = re.split(r"[,\s]+", statement.strip())
        if words[0] in ("", ".reg"):
            continue
        name, target, *operands = words
        values = [_value(operand, registers) for operand in operands]
        registers[target] = _DO[name](*values)
    return [registers[f"${i}"] for i in range(outputs)]


def _value(operand: str, registers: Mapping[str, Register]) -> Register:
    return registers[operand] if operand in registers else np.array([int(operand, 0)], np.uint32)


def _permute(a: Register, b: Register, selector: Register) -> Register:
    """`prmt`: four bytes chosen of eight, a's being 0 to 3."""
    result = np.zeros_like(a)
    for place in range(4):
        chosen = int(selector[0]) >> 4 * place & 15
        assert chosen < 8, "the sign mode is not modelled"
        source = (a, b)[chosen // 4]
        result |= (source >> np.uint32(8 * (chosen % 4)) & np.uint32(255)) << np.uint32(8 * place)
    return result


def _subtract_halves(a: Register, b: Register) -> Register:
    wide = np.broadcast_to(b, a.shape).copy()
    return (a.copy().view(np.float16) - wide.view(np.float16)).view(np.uint32)


_DO: Mapping[str, Callable[..., Register]] = {
    "xor.b32": np.bitwise_xor,
    "and.b32": np.bitwise_and,
    "shr.b32": np.right_shift,
    "mov.b32": np.copy,
    "prmt.b32": _permute,
    "sub.f16x2": _subtract_halves,
}
