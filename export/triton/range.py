"""Keeping the `triton` engine's activations within FP16.

The residual stream, sums and activations inside a kernel are FP32; what passes from one kernel to
the next is FP16. The product of gate and up, which `down_proj` reads, is what leaves its range: in
the last vision block of Qwen2.5-VL-3B. A power of two moves from up's weights into down's, which
changes no digit, costs nothing and leaves kernels as they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from export.calibration.overflow import MARGIN, require_attention
from export.calibration.plan import END_OF_HALF, Plan
from idetex_edge.errors import ExportError


def quieted(plan: Plan) -> Mapping[str, float]:
    """Give the factor of each `down_proj` that a plan has found too loud: powers of two.

    Raises ExportError where anything else would overflow.
    """
    require_attention(plan)
    factors: dict[str, float] = {}
    for name, peaks in plan.wide.items():
        if name.endswith(".down_proj") and math.isfinite(peaks.takes):
            share = peaks.takes * MARGIN / END_OF_HALF
            factors[name] = 2.0 ** max(0, math.ceil(math.log2(share)))
        elif not peaks.takes <= END_OF_HALF:
            raise ExportError(
                f"{name} takes up to {peaks.takes:.3g}, and FP16, in which the triton engine "
                f"passes it on, ends at {END_OF_HALF:.0f}; this checkpoint needs the onnx engine"
            )
    return factors
