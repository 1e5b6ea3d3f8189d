"""One call of the decoder graph, bound to buffers: filled in, run, and run again.

The contract is that of `export/graphs/decoder.py`.
"""

from __future__ import annotations

from collections.abc import Sequence as List
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from idetex_edge.bundle import TextFacts
from idetex_edge.engines.cache import KvCache
from idetex_edge.engines.sessions import run_options
from idetex_edge.errors import EngineError


class DecoderStep:
    """Appends `tokens` tokens to each of the cache's rows first..first+rows, again and again.

    Fill `embeddings` (float32 [rows, tokens, hidden]) and the leading rows * tokens rows of `cos`
    and `sin` (float32 [.., head_dim / 2], each new token's rotary angles), then `run`. Holds views
    of the cache's data, so it is valid until the cache grows.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        facts: TextFacts,
        cache: KvCache,
        first: int,
        rows: int,
        tokens: int,
        asked: int = 1,
        *,
        apart: bool = False,
        profile: int | None = None,
    ) -> None:
        """Bind the buffers. asked: how many of the tokens, at the end, to give logits of.

        More than one only where the graph takes `logit_tokens`. apart: the session computes in
        memory of its own. profile: which of the session's it runs in, where it has some.
        """
        self._session, self._tokens = session, tokens
        self._apart, self._run = apart, run_options(profile)
        self.embeddings = np.empty((rows, tokens, facts.hidden), np.float32)
        # The runtime wants as many rows as the cache is long, though it reads only the new ones.
        angles = (max(cache.slots, rows * tokens), facts.head_dim // 2)
        self.cos, self.sin = np.empty(angles, np.float32), np.empty(angles, np.float32)
        self._last_slots = np.empty(rows, np.int32)
        self._total_length = np.empty((), np.int32)
        self._logits = np.empty((rows * asked, facts.vocab), np.float32)
        self._binding = session.io_binding()
        inputs: dict[str, npt.NDArray[Any]] = {
            "embeddings": self.embeddings,
            "cos": self.cos,
            "sin": self.sin,
            "rotary_rows": np.arange(rows * tokens).reshape(rows, tokens),
            "last_slots": self._last_slots,
            "total_length": self._total_length,
            "logit_tokens": np.arange(-asked, 0),
        }
        taken = {value.name for value in session.get_inputs()}
        self._inputs = {
            name: ort.OrtValue.ortvalue_from_numpy(array)
            for name, array in inputs.items()
            if name in taken
        }
        self._binding.bind_ortvalue_output("logits", ort.OrtValue.ortvalue_from_numpy(self._logits))
        for i, layer in enumerate(cache.data):
            for kind, part in zip(("key", "value"), layer, strict=True):
                value = ort.OrtValue.ortvalue_from_numpy(part[first : first + rows])
                self._inputs[f"past_{kind}_{i}"] = value
                self._binding.bind_ortvalue_output(f"present_{kind}_{i}", value)
        # The bound values point into these arrays without owning them.
        self._kept = (inputs, cache.data)
        self._bind_inputs()

    def _bind_inputs(self) -> None:
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)

    def run(self, lengths: List[int]) -> npt.NDArray[np.float32]:
        """Run on rows that hold `lengths` tokens so far; logits [rows * asked, vocab].

        They are good until it is run again.
        """
        self._last_slots[:] = lengths
        self._last_slots += self._tokens - 1
        self._total_length[()] = max(lengths) + self._tokens
        try:
            if self._apart:
                # A GPU's inputs are copied to it when they are bound, not when it runs.
                self._bind_inputs()
            self._session.run_with_iobinding(self._binding, self._run)
        except Exception as error:
            raise EngineError(f"the decoder failed: {str(error).splitlines()[0]}") from None
        return self._logits
