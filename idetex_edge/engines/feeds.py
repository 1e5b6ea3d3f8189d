"""What the vision graph is fed, on every engine that runs it (`export/graphs/vision.py`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from idetex_edge.bundle import VisionFacts
from idetex_edge.positions import VisionWindows, vision_rotary, vision_windows
from idetex_edge.preprocess import PatchedImage

Feeds = dict[str, npt.NDArray[Any]]


def vision_feeds(image: PatchedImage, facts: VisionFacts) -> Feeds:
    """Every input of the vision graph by name: patches, rotary angles and, if any, windows."""
    rows, columns = image.grid
    cos, sin = vision_rotary(
        rows, columns, head_size=facts.head_dim, merge_size=facts.merge, theta=facts.rope_theta
    )
    feeds: Feeds = {"patches": image.patches, "cos": cos, "sin": sin}
    if len(facts.full_blocks) == facts.layers:
        return feeds
    sizes = {"window_size": facts.window, "patch_size": facts.patch, "merge_size": facts.merge}
    return feeds | window_feeds(vision_windows(rows, columns, **sizes))


def window_feeds(windows: VisionWindows) -> dict[str, npt.NDArray[Any]]:
    """Lay windows out as the vision graph's batch dimension (its inputs of these names).

    window_slots: int64 [W, S], the patch in each slot; window_lengths: int32 [W], filled slots;
    patch_slots: int64 [N], the slot of each patch.
    """
    lengths = np.diff(windows.cu_seqlens)
    filled = np.arange(lengths.max()) < lengths[:, None]
    patches = windows.reorder(np.arange(int(windows.cu_seqlens[-1])))
    slots = np.zeros(filled.shape, np.int64)
    slots[filled] = patches
    patch_slots = np.empty(len(patches), np.int64)
    patch_slots[patches] = np.flatnonzero(filled)
    return {
        "window_slots": slots,
        "window_lengths": lengths.astype(np.int32),
        "patch_slots": patch_slots,
    }
