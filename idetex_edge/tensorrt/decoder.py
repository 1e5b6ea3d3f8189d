"""The decoder engine at work: prefill of one sequence, decoding of several."""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Callable
from collections.abc import Sequence as List

import numpy as np
import numpy.typing as npt

from idetex_edge.bundle import TextFacts
from idetex_edge.cuda.driver import Device
from idetex_edge.tensorrt.buffers import Buffers
from idetex_edge.tensorrt.runtime import Program
from idetex_edge.tensorrt.slots import DeviceCache, Recorded

Floats = npt.NDArray[np.float32]


class Decoder:
    """Appends tokens to rows of a `DeviceCache` (the contract is `export/graphs/decoder.py`'s)."""

    def __init__(
        self,
        device: Device,
        prefill: Program,
        decoding: Callable[[], Program],
        facts: TextFacts,
        captures: bool,
    ) -> None:
        """Work on contexts of their own: one for prompts, one from `decoding` for decoding.

        captures: whether steps are recorded as CUDA graphs. Each then has another from `decoding`,
        as NVIDIA's guide advises: what a context runs later must not change what was recorded.
        """
        self._device, self._facts, self._captures = device, facts, captures
        self._prefill, self._decode, self._decoding = prefill, decoding(), decoding
        self._spare: dict[int, list[Program]] = defaultdict(list)
        """Contexts whose recorded steps are gone, by the rows that they last decoded."""
        self._buffers = Buffers(device)
        self.most_rows = self._decode.largest("embeddings")[0]
        """The most sequences that decode together."""

    def prefill(
        self, cache: DeviceCache, row: int, length: int, embeddings: Floats, angles: List[Floats]
    ) -> Floats:
        """Append tokens [n, hidden] with angles (cos, sin) [n, head_dim / 2]; logits [vocab]."""
        return self._run(self._prefill, cache, row, embeddings[None], angles, [length])[0]

    def decode(
        self,
        cache: DeviceCache,
        first: int,
        embeddings: Floats,
        angles: List[Floats],
        lengths: List[int],
    ) -> Floats:
        """Append a token to each of so many rows from `first` on; logits [rows, vocab]."""
        key = (first, len(lengths)) if self._captures else None
        return self._run(self._decode, cache, first, embeddings[:, None], angles, lengths, key)

    def _run(
        self,
        program: Program,
        cache: DeviceCache,
        first: int,
        embeddings: Floats,
        angles: List[Floats],
        lengths: List[int],
        key: tuple[int, int] | None = None,
    ) -> Floats:
        rows, tokens = embeddings.shape[:2]
        half, held = self._facts.head_dim // 2, self._buffers
        filled = {
            "embeddings": held.host("embeddings", np.float32, embeddings.shape),
            "cos": held.host("cos", np.float32, (cache.slots, half)),
            "sin": held.host("sin", np.float32, (cache.slots, half)),
            "rotary_rows": held.host("rotary_rows", np.int64, (rows, tokens)),
            "last_slots": held.host("last_slots", np.int32, (rows,)),
        }
        logits = held.host("logits", np.float32, (rows, self._facts.vocab))
        filled["embeddings"][:] = embeddings
        # The engine wants an angle for every slot, and reads only those of the new tokens.
        for name, values in zip(("cos", "sin"), angles, strict=True):
            filled[name] = filled[name][: rows * tokens]
            filled[name][:] = values
        filled["rotary_rows"][:] = np.arange(rows * tokens).reshape(rows, tokens)
        filled["last_slots"][:] = np.add(lengths, tokens - 1)
        recorded = cache.recorded.get(key) if key else None
        if recorded is not None and recorded.addresses == held.addresses:
            self._device.replay(recorded.graph)
        else:
            if key:
                program = self._own(cache, rows) if recorded is None else recorded.program
            shapes = {name: array.shape for name, array in filled.items()} | cache.shapes(rows)
            shapes |= dict.fromkeys(("cos", "sin"), (cache.slots, half))

            def work() -> None:
                for name, array in filled.items():
                    held.upload(name, array)
                program.run({**held.addresses, **cache.addresses(first)}, shapes)
                held.download("logits", logits)

            work()
            if key:
                # TensorRT prepares a shape when it is first run: only the second may be recorded.
                self._device.synchronize()
                graph = self._device.capture(work, cache)
                cache.recorded[key] = Recorded(held.addresses, graph, program)
        self._device.synchronize()
        return logits.copy()

    def _own(self, cache: DeviceCache, rows: int) -> Program:
        """A context for what is recorded on so many rows of a cache, for as long as it lives."""
        spare = self._spare[rows]
        program = spare.pop() if spare else self._decoding()
        weakref.finalize(cache, spare.append, program)
        return program
