"""INT8 and INT4 to the type that they are multiplied in, in registers, exactly.

What memory gives in whole numbers has to be widened as fast as it comes. The plain conversion to
FP16 is one instruction for each number, of a unit that takes 16 of them in a cycle; a streaming
multiprocessor is given about as many bytes, so it alone would fill the time. FP16 from 1024 to 2047
counts in ones: put behind the byte 0x64, a byte is 1024 more than it was, for any two of them with
one instruction, and one more subtracts that. BF16 has no such range for eight bits; what is
multiplied in it, which no engine does, is left to Triton's own conversion.

The tests' interpreter knows the instructions used here (`tests/interpreted/ptx.py`).
"""

# Arguments of a Triton function get their types when it is compiled.
# pyright: reportMissingParameterType=false, reportUnknownParameterType=false
# pyright: reportUntypedFunctionDecorator=false, reportArgumentType=false

from __future__ import annotations

from typing import Final

import triton
import triton.language as tl


def _of_bytes(first: str, second: str) -> tl.constexpr:
    """PTX that widens a register's four bytes, two to each output; `prmt`'s selectors say which.

    With its highest bit turned, a byte is its value and 128.
    """
    return tl.constexpr(f"""{{
.reg .b32 raised, offset;
xor.b32 raised, $2, 0x80808080;
mov.b32 offset, 0x64806480;
prmt.b32 $0, raised, 0x64646464, {first};
prmt.b32 $1, raised, 0x64646464, {second};
sub.f16x2 $0, $0, offset;
sub.f16x2 $1, $1, offset;
}}""")


_BYTES: Final = _of_bytes("0x4140", "0x4342")
"""Four bytes in order."""

_PAIRS: Final = _of_bytes("0x4240", "0x4341")
"""Two pairs of bytes: the lower of each, then the upper of each."""

_HALVES: Final = tl.constexpr("""{
.reg .b32 lower, upper, offset;
and.b32 lower, $4, 0x0f0f0f0f;
shr.b32 upper, $4, 4;
and.b32 upper, upper, 0x0f0f0f0f;
mov.b32 offset, 0x64086408;
prmt.b32 $0, lower, 0x64646464, 0x4140;
prmt.b32 $1, lower, 0x64646464, 0x4342;
prmt.b32 $2, upper, 0x64646464, 0x4140;
prmt.b32 $3, upper, 0x64646464, 0x4342;
sub.f16x2 $0, $0, offset;
sub.f16x2 $1, $1, offset;
sub.f16x2 $2, $2, offset;
sub.f16x2 $3, $3, offset;
}""")
"""The lower halves of four bytes, then the upper ones, each less 8."""


@triton.jit
def widened(x, kind: tl.constexpr):
    """INT8 in a type of floats."""
    if kind == tl.float16:
        y = tl.inline_asm_elementwise(
            _BYTES, "=r,=r,r", [x], dtype=tl.float16, is_pure=True, pack=4
        )
    else:
        y = x.to(kind)
    return y


@triton.jit
def pairs(x, kind: tl.constexpr):
    """The lower and the upper bytes of pairs of INT8 that were read as INT16."""
    if kind == tl.float16:
        low, high = tl.inline_asm_elementwise(
            _PAIRS, "=r,=r,r", [x], dtype=(tl.float16, tl.float16), is_pure=True, pack=2
        )
    else:
        low, high = x.to(tl.int8).to(kind), (x >> 8).to(tl.int8).to(kind)
    return low, high


@triton.jit
def halves(x, kind: tl.constexpr):
    """The lower and the upper halves of bytes of two INT4, each stored as 8 more."""
    if kind == tl.float16:
        low, high = tl.inline_asm_elementwise(
            _HALVES, "=r,=r,=r,=r,r", [x], dtype=(tl.float16, tl.float16), is_pure=True, pack=4
        )
    else:
        low = ((x & 15).to(tl.int8) - 8).to(kind)
        high = ((x >> 4).to(tl.int8) - 8).to(kind)
    return low, high
