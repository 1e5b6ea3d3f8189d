"""Matrices whose numbers FP16 cannot hold, found by what they take and give on real pictures.

Attention, norms and residuals aside, TensorRT's graphs multiply in FP16 and go on in FP32, so a
matrix overflows by its input or by its product. The last vision block of Qwen2.5-VL-3B does, in its
down_proj. Such matrices stay in FP32 at every precision: infinity cannot be scaled back.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from export.calibration.observe import Observation

MARGIN: Final = 4.0
"""How much larger numbers may be on pictures that were not seen."""

_LARGEST: Final = float(np.finfo(np.float16).max)


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
