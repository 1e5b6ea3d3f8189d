"""A launch to check and time, and the sizes of most.

Shapes are Qwen2.5-VL-3B's where nothing else is said: 16 query heads on 2 key-value heads of size
128, hidden size 2048, a vision encoder of 16 heads of size 80 and hidden size 1280.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

HEADS, KV_HEADS, HEAD_DIM, HIDDEN = 16, 2, 128, 2048
VISION_HEADS, VISION_HEAD_DIM, VISION_HIDDEN = 16, 80, 1280

Launch = Callable[[], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Case:
    """A launch to check and time.

    run: launches the kernel and returns its output. right: the reference's, float64. moved: bytes
    that must be read and written. operations: of the products, which multiply `kind`. told: what to
    compare instead of the output, once it ran; it clears what it reads. peers: the same in torch,
    by how; "compiled" goes through torch.compile.
    """

    run: Launch
    right: Launch
    moved: int
    operations: int = 0
    kind: str = "fp16"
    tolerance: float = 2e-3
    told: Launch | None = None
    peers: Mapping[str, Launch] = field(default_factory=dict[str, Launch])
