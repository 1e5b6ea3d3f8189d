"""The vision encoder on the device: patches of one picture to features."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from idetex_edge.bundle import TextFacts, VisionFacts
from idetex_edge.cuda.driver import Device
from idetex_edge.positions import VisionWindows, vision_rotary, vision_windows
from idetex_edge.preprocess import PatchedImage
from idetex_edge.triton.contents import Contents
from idetex_edge.triton.layers import FLOATS, FULL, HALF, Layers, Rounded
from idetex_edge.triton.memory import Buffers
from idetex_edge.triton.slots import GRAIN

QUERIES: Final = 64
"""The most queries of a block of `kernels/prefill_attention.py`."""
EVERYTHING: Final = 2**30
"""A block's limit where every query sees its whole window."""
LOG2_E: Final = 1.4426950408889634

Floats = npt.NDArray[np.float32]
Table = npt.NDArray[np.int32]


class Vision:
    """Runs the encoder. Buffers are planned for the largest picture so far."""

    def __init__(
        self,
        device: Device,
        layers: Layers,
        contents: Contents,
        vision: VisionFacts,
        text: TextFacts,
        patches: int,
    ) -> None:
        """Plan for pictures of up to `patches` patches."""
        self._device, self._layers, self._contents = device, layers, contents
        self._facts, self._features = vision, text.hidden
        # One slot for each patch: what attention calls a cache is this picture's keys and values.
        self._inputs = layers.weights.shape("vision.embed.weight")[1]
        self._plan(patches)

    def encode(self, image: PatchedImage) -> Floats:
        """Features in raster order, float32 [N / merge^2, text hidden]."""
        (rows, columns), facts = image.grid, self._facts
        count = len(image.patches)
        if count > self._capacity:
            self._plan(count)
        windows = vision_windows(
            rows,
            columns,
            # Without windows, one that holds any picture keeps the raster order.
            window_size=facts.window or max(rows, columns) * facts.patch,
            patch_size=facts.patch,
            merge_size=facts.merge,
        )
        self._upload(image, windows)
        tables = {
            full: self._blocks(
                f"{'full' if full else 'window'}_",
                np.array([0, count]) if full else windows.cu_seqlens,
            )
            for full in (False, True)
        }
        self._embed(count)
        for i in range(facts.layers):
            self._block(f"vision.blocks.{i}", count, *tables[i in facts.full_blocks])
        return self._project(count // facts.merge**2)

    def _plan(self, patches: int) -> None:
        facts, weights = self._facts, self._layers.weights
        self._capacity = capacity = -(-patches // GRAIN) * GRAIN
        wide = max(
            weights.shape(f"vision.blocks.0.{name}.weight")[0]
            for name in ("gate_up", "fc1")
            if f"vision.blocks.0.{name}" in self._contents.forms
        )
        tokens = capacity // facts.merge**2
        half = capacity * facts.hidden * HALF
        self._buffers = Buffers(
            self._device,
            {
                "patches": capacity * self._inputs * HALF,
                "stream": capacity * facts.hidden * FULL,
                "x": half,
                "qkv": 3 * half,
                **dict.fromkeys(("query", "keys", "values", "mixed"), half),
                "inner": capacity * wide * HALF,
                "levels": capacity * max(self._inputs, facts.hidden, wide),
                "steps": capacity * FULL,
                "between": half,
                "features": tokens * self._features * FULL,
                **dict.fromkeys(("cos", "sin"), capacity * facts.head_dim // 2 * FULL),
                "positions": 3 * capacity * 4,
                "slots": capacity * 4,
                "order": tokens * 4,
                # A window has at least one patch, a block at least one query.
                **{f"{kind}_blocks": capacity * 5 * 4 for kind in ("window", "full")},
                **{f"{kind}_runs": capacity * 2 * 4 for kind in ("window", "full")},
            },
        )

    def _upload(self, image: PatchedImage, windows: VisionWindows) -> None:
        facts, count, device = self._facts, len(image.patches), self._device
        patches = np.zeros((count, self._inputs), np.float16)
        patches[:, : image.patches.shape[1]] = windows.reorder(image.patches)
        cos, sin = vision_rotary(
            *image.grid,
            head_size=facts.head_dim,
            merge_size=facts.merge,
            theta=facts.rope_theta,
            windows=windows,
        )
        places = np.arange(count, dtype=np.int32)
        contents = {
            "patches": patches,
            "cos": cos,
            "sin": sin,
            "positions": np.tile(places, 3),
            "slots": places,
            "order": windows.inverse.astype(np.int32),
        }
        for name, data in contents.items():
            device.upload(self._buffers[name], data)
        device.synchronize()

    def _blocks(self, kind: str, ends: npt.NDArray[np.integer]) -> tuple[int, int, int]:
        """Upload the attention of windows that end there: blocks' address, count, runs' address."""
        runs = np.stack((ends[:-1], np.diff(ends)), axis=1).astype(np.int32)
        blocks = np.array(
            [
                (start + first, min(QUERIES, count - first), EVERYTHING, run, 1)
                for run, (start, count) in enumerate(runs)
                for first in range(0, count, QUERIES)
            ],
            np.int32,
        )
        places = self._buffers[f"{kind}blocks"], self._buffers[f"{kind}runs"]
        for place, table in zip(places, (blocks, runs), strict=True):
            self._device.upload(place, table)
        self._device.synchronize()
        return places[0], len(blocks), places[1]

    def _embed(self, count: int) -> None:
        b, layers = self._buffers, self._layers
        x = layers.entered("vision.embed", b["patches"], count, self._spare)
        layers.linear("vision.embed", b["stream"], x, count, "full")

    @property
    def _spare(self) -> Rounded:
        return Rounded(self._buffers["levels"], self._buffers["steps"])

    def _block(self, name: str, count: int, blocks: int, block_count: int, runs: int) -> None:
        b, layers, facts, contents = self._buffers, self._layers, self._facts, self._contents
        norm = (contents.norm, contents.vision_epsilon)
        heads, size = facts.heads, facts.head_dim
        x = layers.entry(f"{name}.qkv", b["x"], self._spare)
        layers.norm(f"{name}.norm1", x, b["stream"], count, *norm)
        layers.linear(f"{name}.qkv", b["qkv"], x, count, "plain")
        # Keys and values stay in the activations' type, so their scales are not read.
        caches = (b["keys"], b["values"], b["cos"], b["cos"])
        layers.kernels[f"append.{FLOATS}.float.{size}"](
            (count, 3 * heads),
            *(b["query"], *caches, b["qkv"], b["cos"], b["sin"], b["positions"], b["slots"]),
            *(count, heads, heads, self._capacity, 0, 0),
        )
        layers.kernels[f"prefill_attention.{FLOATS}.float.{size}"](
            (block_count, heads),
            *(b["mixed"], b["query"], *caches, blocks, runs),
            *(heads, 1, self._capacity, size**-0.5 * LOG2_E),
        )
        stream = b["stream"]
        mixed = layers.entered(f"{name}.proj", b["mixed"], count, self._spare)
        layers.linear(f"{name}.proj", stream, mixed, count, "residual", stream)
        inner, outer, epilogue = "gate_up", "down", "gated"
        if contents.vision_activation:
            inner, outer, epilogue = "fc1", "fc2", contents.vision_activation
        x = layers.entry(f"{name}.{inner}", b["x"], self._spare)
        layers.norm(f"{name}.norm2", x, stream, count, *norm)
        layers.linear(f"{name}.{inner}", b["inner"], x, count, epilogue)
        between = layers.entered(f"{name}.{outer}", b["inner"], count, self._spare)
        layers.linear(f"{name}.{outer}", stream, between, count, "residual", stream)

    def _project(self, tokens: int) -> Floats:
        b, layers, facts, contents = self._buffers, self._layers, self._facts, self._contents
        unit, block = facts.merge**2, max(64, 1 << (facts.hidden - 1).bit_length())
        weight, bias = (layers.weights[f"vision.norm.{part}"] for part in ("weight", "bias"))
        x = layers.entry("vision.merge1", b["x"], self._spare)
        whole = isinstance(x, Rounded)
        rows, steps = (x.levels, x.steps) if whole else (x, b["between"])
        output = "int8" if whole else FLOATS
        layers.kernels[f"merge_patches.{contents.norm}.{output}.{unit}x{block}"](
            (tokens, 1),
            *(rows, steps, b["stream"], b["order"], weight, bias),
            *(facts.hidden, contents.vision_epsilon),
        )
        layers.linear("vision.merge1", b["between"], x, tokens, "gelu")
        between = layers.entered("vision.merge2", b["between"], tokens, self._spare)
        layers.linear("vision.merge2", b["features"], between, tokens, "full")
        features = np.empty((tokens, self._features), np.float32)
        self._device.download(features, b["features"])
        self._device.synchronize()
        return features
