"""The language model on the device: prefill in pieces, and decoding as captured graphs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from idetex_edge.bundle import TextFacts
from idetex_edge.cuda.driver import Device
from idetex_edge.errors import EngineError
from idetex_edge.positions import mrope_rotary
from idetex_edge.triton.chunks import PARTS, PROGRAMS, SIZES, Chunks, chunks_of
from idetex_edge.triton.contents import Contents
from idetex_edge.triton.layers import FLOATS, FULL, HALF, Layers, Rounded
from idetex_edge.triton.memory import Buffers
from idetex_edge.triton.slots import Chain, Slots
from idetex_edge.triton.vision import LOG2_E, QUERIES

PIECE: Final = 512
"""The most tokens that are prefilled at once; longer prompts take several turns."""
ROWS: Final = 32
"""The most sequences that decode as one batch."""
RUNS: Final = 256
"""The most runs of a chain."""
SLOTS: Final = 32768
"""The most slots of the cache; fewer where four full contexts take fewer."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Step:
    """A captured decoding step: for this many rows, and chunks of each kind."""

    rows: int
    single: int
    shared: int


class Language:
    """Runs the language model. Every buffer is planned here, once."""

    def __init__(
        self, device: Device, layers: Layers, contents: Contents, facts: TextFacts
    ) -> None:
        self._device, self._layers, self._contents = device, layers, contents
        self._facts = facts
        self._group = facts.heads // facts.kv_heads
        self._members = 64 // self._group
        self._programs = PROGRAMS * device.processors // facts.kv_heads
        self._size_of_cache = 1 if contents.cache == "int8" else HALF
        self.slots = Slots(min(SLOTS, -(-4 * facts.max_context // 16) * 16))
        self._caches = Buffers(device, self._cache_sizes())
        self._buffers = Buffers(device, self._sizes())
        self._graphs: dict[_Step, Any] = {}
        self._tables = self._pinned(
            {
                "positions": 3 * ROWS,
                "slots": ROWS,
                "single": 4 * PARTS,
                "shared": 4 * PARTS,
                "rows": PARTS,
                "offsets": ROWS + 1,
                "parts": PARTS,
            }
        )
        self._embeddings = device.pinned(ROWS * facts.hidden * FULL, self).view(np.float32)
        self._logits = device.pinned(ROWS * facts.vocab * FULL, self).view(np.float32)
        self._upload_angles()

    def prefill(self, chain: Chain, embeddings: Floats, positions: npt.NDArray[np.int64]) -> Floats:
        """Append tokens to a chain: float32 [n, hidden] at [3, n]; the last's logits [vocab]."""
        _check_runs(chain)
        logits = np.empty(self._facts.vocab, np.float32)
        for first in range(0, len(embeddings), PIECE):
            piece = slice(first, first + PIECE)
            self._prefill_piece(chain, embeddings[piece], positions[:, piece])
        rows = min(len(embeddings) - (len(embeddings) - 1) // PIECE * PIECE, PIECE)
        last = self._buffers["stream"] + (rows - 1) * self._facts.hidden * FULL
        self._head(last, 1)
        self._device.download(logits, self._buffers["logits"])
        self._device.synchronize()
        return logits

    def decode(self, chains: Sequence[Chain], embeddings: Floats) -> Floats:
        """Append one text token to each chain, float32 [b, hidden]; logits float32 [b, vocab]."""
        if len(chains) > ROWS or (len(chains) > 1 and sum(map(_fewest_parts, chains)) > PARTS):
            return self._in_halves(chains, embeddings)
        for chain in chains:
            _check_runs(chain)
            chain.reserve()
        positions = np.array([chain.next_position for chain in chains])
        slots = [slot for chain in chains for slot in chain.append(1)]
        for chain in chains:
            chain.next_position += 1
        chunks = chunks_of(chains, self._members, self._programs)
        step = _Step(len(chains), _bucket(len(chunks.single)), _bucket(len(chunks.shared)))
        self._fill(step, positions, slots, chunks)
        count = len(chains)
        self._embeddings[: count * self._facts.hidden] = embeddings.ravel()
        if step not in self._graphs:
            # Done once before it is captured: kernels cannot be loaded while a stream is.
            self._step(step)
            self._device.synchronize()
            self._graphs[step] = self._device.capture(lambda: self._step(step), self)
        else:
            self._device.replay(self._graphs[step])
            self._device.synchronize()
        return self._logits[: count * self._facts.vocab].reshape(count, -1).copy()

    def _in_halves(self, chains: Sequence[Chain], embeddings: Floats) -> Floats:
        middle = len(chains) // 2
        first = self.decode(chains[:middle], embeddings[:middle])
        return np.concatenate((first, self.decode(chains[middle:], embeddings[middle:])))

    def _cache_sizes(self) -> dict[str, int]:
        facts, heads = self._facts, self._facts.kv_heads * self.slots.count
        sizes: dict[str, int] = {}
        for layer in range(facts.layers):
            for kind in ("keys", "values"):
                sizes[f"{kind}.{layer}"] = heads * facts.head_dim * self._size_of_cache
                scales = heads * FULL if self._contents.cache == "int8" else 0
                sizes[f"{kind}.{layer}.scales"] = scales
        return sizes

    def _sizes(self) -> dict[str, int]:
        facts = self._facts
        wide = self._layers.weights.shape("text.layers.0.gate_up.weight")[0] // 2
        queries = facts.heads * facts.head_dim
        return {
            "stream": PIECE * facts.hidden * FULL,
            "x": PIECE * facts.hidden * HALF,
            "qkv": PIECE * (queries + 2 * facts.kv_heads * facts.head_dim) * HALF,
            "query": PIECE * queries * HALF,
            "mixed": PIECE * queries * HALF,
            "inner": PIECE * wide * HALF,
            "levels": PIECE * max(facts.hidden, queries, wide),
            "steps": PIECE * FULL,
            "partial": PARTS * queries * FULL,
            "weight": PARTS * facts.heads * FULL,
            "logits": ROWS * facts.vocab * FULL,
            "cos": facts.max_context * facts.head_dim // 2 * FULL,
            "sin": facts.max_context * facts.head_dim // 2 * FULL,
            "tables": (4 * ROWS + 8 * PARTS + 2 * PARTS + ROWS + 1) * 4 + 7 * 64,
            "positions": 3 * PIECE * 4,
            "slots": PIECE * 4,
            "blocks": PIECE * 5 * 4,
            "runs": RUNS * 2 * 4,
        }

    def _pinned(self, sizes: dict[str, int]) -> dict[str, tuple[npt.NDArray[np.int32], int]]:
        """Host tables of int32 in one pinned block, and where each lies on the device."""
        offsets, end = dict[str, int](), 0
        for name, size in sizes.items():
            offsets[name] = end
            end += -(-size // 16) * 16
        self._block = self._device.pinned(end * 4, self).view(np.int32)
        self._block[:] = 0
        base = self._buffers["tables"]
        return {
            name: (self._block[offset : offset + sizes[name]], base + offset * 4)
            for name, offset in offsets.items()
        }

    def _upload_angles(self) -> None:
        facts = self._facts
        every = np.broadcast_to(np.arange(facts.max_context), (3, facts.max_context))
        # Each axis turns alike along the diagonal: row p holds the angles of position p.
        cos, sin = mrope_rotary(
            every,
            head_size=facts.head_dim,
            sections=facts.mrope_section,
            theta=facts.rope_theta,
        )
        self._device.upload(self._buffers["cos"], cos)
        self._device.upload(self._buffers["sin"], sin)
        self._device.synchronize()

    def _prefill_piece(
        self, chain: Chain, embeddings: Floats, positions: npt.NDArray[np.int64]
    ) -> None:
        b, device, facts = self._buffers, self._device, self._facts
        count, past = len(embeddings), chain.length
        slots = np.array(chain.append(count), np.int32)
        chain.next_position = max(chain.next_position, int(positions.max()) + 1)
        runs = np.array([(run.segment.start, run.count) for run in chain.runs], np.int32)
        blocks = np.array(
            [
                (first, min(QUERIES, count - first), past + first + 1, 0, len(runs))
                for first in range(0, count, QUERIES)
            ],
            np.int32,
        )
        for name, data in (
            ("stream", np.asarray(embeddings, np.float32)),
            ("positions", positions.astype(np.int32)),
            ("slots", slots),
            ("blocks", blocks),
            ("runs", runs),
        ):
            device.upload(b[name], data)
        device.synchronize()

        def attention(layer: int) -> None:
            self._layers.kernels[
                f"prefill_attention.{FLOATS}.{self._contents.cache}.{facts.head_dim}"
            ](
                (len(blocks), facts.heads),
                *(b["mixed"], b["query"], *self._cache(layer), b["blocks"], b["runs"]),
                *(facts.heads, self._group, self.slots.count, facts.head_dim**-0.5 * LOG2_E),
            )

        # However few tokens a piece has: where a prompt is cut must not change what it says.
        spare = Rounded(b["levels"], b["steps"])
        for layer in range(facts.layers):
            self._before(layer, count, b["positions"], b["slots"], spare)
            attention(layer)
            self._after(layer, count, spare)

    def _fill(
        self,
        step: _Step,
        positions: npt.NDArray[np.integer[Any]],
        slots: Sequence[int],
        chunks: Chunks,
    ) -> None:
        """Write a step's tables; chunks behind the last have no slots, so they do nothing."""
        tables = {
            "positions": np.tile(positions, 3),
            "slots": np.array(slots),
            "single": chunks.single.ravel(),
            "shared": chunks.shared.ravel(),
            "rows": chunks.rows,
            "offsets": chunks.offsets,
            "parts": chunks.parts,
        }
        for name, values in tables.items():
            self._tables[name][0][: len(values)] = values
        self._tables["single"][0][4 * len(chunks.single) : 4 * step.single] = 0
        self._tables["shared"][0][4 * len(chunks.shared) : 4 * step.shared] = 0

    def _step(self, step: _Step) -> None:
        """Ask for one decoding step; the same memory each time, so that it can be captured."""
        b, device, facts = self._buffers, self._device, self._facts
        device.upload(b["tables"], self._block)
        device.upload(b["stream"], self._embeddings[: step.rows * facts.hidden])
        at = {name: address for name, (_, address) in self._tables.items()}
        for layer in range(facts.layers):
            self._before(layer, step.rows, at["positions"], at["slots"])
            self._decode_attention(layer, step, at)
            self._after(layer, step.rows)
        self._head(b["stream"], step.rows)
        device.download(self._logits[: step.rows * facts.vocab], b["logits"])

    def _decode_attention(self, layer: int, step: _Step, at: dict[str, int]) -> None:
        b, facts, kernels = self._buffers, self._facts, self._layers.kernels
        name = f"decode_attention.{FLOATS}.{self._contents.cache}.{facts.head_dim}x{self._group}"
        for kind in ("single", "shared"):
            if count := getattr(step, kind):
                kernels[f"{name}.{kind}"](
                    (count, facts.kv_heads),
                    *(b["partial"], b["weight"], b["query"], *self._cache(layer)),
                    *(at[kind], at["rows"]),
                    *(facts.heads, self.slots.count, facts.head_dim**-0.5 * LOG2_E),
                )
        kernels[f"merge.{FLOATS}.{facts.head_dim}"](
            (step.rows, facts.heads),
            *(b["mixed"], b["partial"], b["weight"], at["offsets"], at["parts"], facts.heads),
        )

    def _cache(self, layer: int) -> tuple[int, int, int, int]:
        c = self._caches
        kinds = (f"keys.{layer}", f"values.{layer}")
        keys, values = (c[kind] for kind in kinds)
        key_scales, value_scales = (c[f"{kind}.scales"] for kind in kinds)
        return keys, values, key_scales, value_scales

    def _before(
        self, layer: int, rows: int, positions: int, slots: int, spare: Rounded | None = None
    ) -> None:
        """Norm, projection, M-RoPE and the write into the cache.

        spare: for what INT8 matrices multiply in INT8; None widens them, as suits few rows.
        """
        b, facts, layers = self._buffers, self._facts, self._layers
        name = f"text.layers.{layer}"
        x = layers.entry(f"{name}.qkv", b["x"], spare) if spare else b["x"]
        layers.norm(f"{name}.norm1", x, b["stream"], rows, "rms", self._contents.epsilon)
        layers.linear(f"{name}.qkv", b["qkv"], x, rows, "plain")
        time, height, _ = facts.mrope_section
        layers.kernels[f"append.{FLOATS}.{self._contents.cache}.{facts.head_dim}"](
            (rows, facts.heads + 2 * facts.kv_heads),
            *(b["query"], *self._cache(layer), b["qkv"], b["cos"], b["sin"], positions, slots),
            *(rows, facts.heads, facts.kv_heads, self.slots.count, time, height),
        )

    def _after(self, layer: int, rows: int, spare: Rounded | None = None) -> None:
        """Output projection and MLP, both onto the residual stream; spare as for `_before`."""
        b, layers, name = self._buffers, self._layers, f"text.layers.{layer}"
        stream = b["stream"]

        def entered(part: str, x: int) -> int | Rounded:
            return layers.entered(f"{name}.{part}", x, rows, spare) if spare else x

        layers.linear(f"{name}.out", stream, entered("out", b["mixed"]), rows, "residual", stream)
        x = layers.entry(f"{name}.gate_up", b["x"], spare) if spare else b["x"]
        layers.norm(f"{name}.norm2", x, stream, rows, "rms", self._contents.epsilon)
        layers.linear(f"{name}.gate_up", b["inner"], x, rows, "gated")
        layers.linear(f"{name}.down", stream, entered("down", b["inner"]), rows, "residual", stream)

    def _head(self, stream: int, rows: int) -> None:
        b, layers = self._buffers, self._layers
        layers.norm("text.norm", b["x"], stream, rows, "rms", self._contents.epsilon)
        layers.linear("text.head", b["logits"], b["x"], rows, "full")


def _fewest_parts(chain: Chain) -> int:
    """Into how many of the longest chunks a chain can be cut when it is one token longer."""
    return 1 + sum(-(-(run.count + 1) // SIZES[-1]) for run in chain.runs)


def _check_runs(chain: Chain) -> None:
    # Two more: what is left of its own segment may be followed by a new one.
    if len(chain.runs) + 2 > RUNS or _fewest_parts(chain) > PARTS:
        raise EngineError(
            f"this sequence of {chain.length} tokens in {len(chain.runs)} forks is more than one "
            "step reads; ask with shorter prompts"
        )


def _bucket(count: int) -> int:
    """Graphs are captured for powers of two, and 0: few graphs, little idle work."""
    return 1 << (count - 1).bit_length() if count else 0
