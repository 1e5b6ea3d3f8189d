"""Matrices whose numbers FP16 cannot hold, found by what they take and give on real pictures.

Attention, norms and residuals aside, TensorRT's graphs multiply in FP16 and go on in FP32, so a
matrix overflows by its input or by its product. The last vision block of Qwen2.5-VL-3B does, in its
down_proj. Such matrices stay in FP32 at every precision: infinity cannot be scaled back. Attention
has no kernels for FP32, so queries, keys and values that FP16 cannot hold are refused.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from export.calibration.observe import Observation
from export.calibration.plan import Plan
from idetex_edge.errors import ExportError

MARGIN: Final = 4.0
"""How much larger numbers may be on pictures that were not seen."""

_LARGEST: Final = float(np.finfo(np.float16).max)

_ATTENDED: Final = (".q_proj", ".k_proj", ".v_proj", ".qkv")
"""Matrices whose product attention reads."""

_TURNED: Final = 2**0.5
"""How much larger a number can be once its pair is rotated."""


def overflowing(seen: Observation) -> dict[str, str]:
    """Name the matrices within `MARGIN` of FP16's range, and say what their largest numbers are."""
    found: dict[str, str] = {}
    for name, inputs in seen.inputs.items():
        largest = {"takes": inputs.largest, "gives": seen.outputs[name]}
        far = [
            f"{way} up to {peak:.3g}"
            for way, peak in largest.items()
            if not peak * MARGIN <= _LARGEST
        ]
        if far:
            found[name] = f"{' and '.join(far)}, where FP16 ends at {_LARGEST:.0f}"
    return found


def beyond_attention(seen: Observation) -> dict[str, str]:
    """Name the matrices that give attention more than FP16 holds, and say how much."""
    return {
        name: f"gives attention up to {peak:.3g}"
        for name, peak in seen.outputs.items()
        if name.endswith(_ATTENDED) and not peak * _TURNED <= _LARGEST
    }


def require_attention(plan: Plan) -> None:
    """Raise ExportError where attention in FP16 cannot read what a plan's matrices give."""
    for name, reason in plan.refused.items():
        raise ExportError(
            f"{name} {reason}, and this target's attention computes in FP16, which ends at "
            f"{_LARGEST:.0f}; convert for onnx-cpu or onnx-standard"
        )
