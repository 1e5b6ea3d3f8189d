"""These tests run kernels in Triton's interpreter, which must be chosen before Triton is imported.

So they have a process of their own: `tests/test_kernels.py` starts it, and so can you, with
`TRITON_INTERPRET=1 pytest --confcutdir tests/interpreted tests/interpreted`.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
from ptx import run_inline

collect_ignore_glob = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["test_*.py"]


@pytest.fixture(autouse=True)
def _bfloat16_as_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let BF16 be numbers where the interpreter takes its bits: in products and from integers."""
    from triton.language import bfloat16, dtype, float32
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    multiply, convert = InterpreterBuilder.create_dot, InterpreterBuilder.cast_impl

    def widened(handle: TensorHandle) -> TensorHandle:
        if handle.dtype.scalar != bfloat16:
            return handle
        return TensorHandle((handle.data.astype(np.uint32) << 16).view(np.float32), float32)

    def create_dot(
        self: InterpreterBuilder, a: TensorHandle, b: TensorHandle, *rest: object
    ) -> TensorHandle:
        return multiply(self, widened(a), widened(b), *rest)

    def cast_impl(self: InterpreterBuilder, source: TensorHandle, kind: dtype) -> TensorHandle:
        if kind.scalar == bfloat16 and source.dtype.scalar.is_int():
            whole = TensorHandle(source.data.astype(np.float32), float32)
            return self.create_fp_trunc(whole, kind)
        return convert(self, source, kind)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", create_dot)
    monkeypatch.setattr(InterpreterBuilder, "cast_impl", cast_impl)


class _Ran:
    """What inline PTX gave, as the interpreter asks for it."""

    def __init__(self, results: list[object]) -> None:
        self._results = results

    def get_result(self, i: int) -> object:
        """The i-th output."""
        return self._results[i]


@pytest.fixture(autouse=True)
def _inline_ptx(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let kernels use the instructions that `ptx.py` knows."""
    from triton.language import dtype
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    def create_inline_asm(
        self: InterpreterBuilder,
        source: str,
        constraints: str,
        inputs: list[TensorHandle],
        kinds: list[dtype],
        is_pure: bool,
        pack: int,
    ) -> _Ran:
        registers = run_inline(
            source, constraints.count("="), [given.data for given in inputs], pack
        )
        each = len(registers) // len(kinds)
        results: list[object] = []
        for i, kind in enumerate(kinds):
            # Registers of one output hold neighbouring elements of a group.
            mine = np.stack(registers[i * each : (i + 1) * each], axis=-1)
            data = mine.ravel().view(np.float16).reshape(inputs[0].data.shape)
            results.append(TensorHandle(data, kind.scalar))
        return _Ran(results)

    monkeypatch.setattr(InterpreterBuilder, "create_inline_asm", create_inline_asm)
