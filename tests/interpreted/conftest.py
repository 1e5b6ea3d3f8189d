"""These tests run kernels in Triton's interpreter, which must be chosen before Triton is imported.

So they have a process of their own: `tests/test_kernels.py` starts it, and so can you, with
`TRITON_INTERPRET=1 pytest --confcutdir tests/interpreted tests/interpreted`.
"""

from __future__ import annotations

import os

import numpy as np
import pytest

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
