"""Which attention TensorRT has dedicated kernels for, known before anything is built.

TensorRT refuses to build an Attention that it has no kernel for. Found by building each shape with
TensorRT-RTX 1.7 in FP16 and BF16, numbers of tokens and sequences left open: heads of 16 to 256 in
steps of 8 build; a single head does only where nothing is masked and the batch is left open, so it
counts as having none. FP32 attention never builds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from export.checkpoint import Checkpoint
from export.lowering.passes import Dialect
from export.lowering.primitive import PRIMITIVE
from export.lowering.standard import STANDARD
from export.targets import Target


@dataclass(frozen=True, slots=True)
class Attention:
    """The attention of one of our operators."""

    operator: str
    heads: int
    head_dim: int

    @property
    def lacks(self) -> str | None:
        """Say why there is no dedicated kernel; None where there is one."""
        if self.head_dim % 8 or not 16 <= self.head_dim <= 256:
            return f"no kernel for heads of {self.head_dim}"
        if self.heads == 1:
            return "no kernel for a single head"
        return None


def suited(target: Target, checkpoint: Checkpoint) -> Dialect:
    """Give the target's dialect, attention that has no kernel spelled out instead."""
    rules = {
        attention.operator: PRIMITIVE.rules[attention.operator]
        for attention, _ in without_kernel(target, checkpoint)
    }
    return replace(target.dialect, rules={**target.dialect.rules, **rules})


def without_kernel(target: Target, checkpoint: Checkpoint) -> Iterator[tuple[Attention, str]]:
    """Give each attention that a TensorRT target must do without a kernel for, and why."""
    if target.builder is None or target.dialect is not STANDARD:
        return
    for attention in _attentions(checkpoint):
        if reason := attention.lacks:
            yield attention, reason


def _attentions(checkpoint: Checkpoint) -> Iterator[Attention]:
    text, vision = checkpoint.text, checkpoint.vision
    yield Attention("PatchAttention", vision.heads, vision.head_dim)
    yield Attention("CachedAttention", text.heads, text.head_dim)
