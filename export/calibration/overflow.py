"""Matrices whose numbers FP16 cannot hold, found by what they take and give on real pictures.

Attention, norms and residuals aside, TensorRT's graphs multiply in FP16 and go on in FP32, so a
matrix overflows by its input or by its product. The last vision block of Qwen2.5-VL-3B does, in its
down_proj. Such matrices stay in FP32 at every precision: infinity cannot be scaled back. Attention
has no kernels for FP32, so queries, keys and values that FP16 cannot hold are refused.
"""

from __future__ import annotations

from typing import Final

from export.calibration.observe import Observation
from export.calibration.plan import END_OF_HALF, Peaks, Plan
from idetex_edge.errors import ExportError

MARGIN: Final = 4.0
"""How much larger numbers may be on pictures that were not seen."""

_ATTENDED: Final = (".q_proj", ".k_proj", ".v_proj", ".qkv")
"""Matrices whose product attention reads."""

_TURNED: Final = 2**0.5
"""How much larger a number can be once its pair is rotated."""


def overflowing(seen: Observation) -> dict[str, Peaks]:
    """Find the matrices within `MARGIN` of FP16's range."""
    found = {
        name: Peaks(inputs.largest, seen.outputs[name]) for name, inputs in seen.inputs.items()
    }
    return {
        name: peaks for name, peaks in found.items() if not peaks.largest * MARGIN <= END_OF_HALF
    }


def require_attention(plan: Plan) -> None:
    """Raise ExportError where attention in FP16 cannot hold what a plan's matrices give it."""
    for name, peaks in plan.wide.items():
        if name.endswith(_ATTENDED) and not peaks.gives * _TURNED <= END_OF_HALF:
            raise ExportError(
                f"{name} gives attention up to {peaks.gives:.3g}, and FP16, which this target's "
                f"attention computes in, ends at {END_OF_HALF:.0f}; convert for onnx-cpu or "
                "onnx-standard"
            )
