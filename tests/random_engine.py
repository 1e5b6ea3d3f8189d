"""An engine without a model: every next token is as likely as chance has it."""

from __future__ import annotations

from collections.abc import Sequence as List
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from idetex_edge.engines.protocol import Floats, Ids, Sequence
from idetex_edge.preprocess import PatchedImage


@dataclass(slots=True)
class Counted:
    """How many tokens were fed."""

    length: int = 0

    @property
    def next_position(self) -> int:
        return self.length


class RandomEngine:
    """Logits are normal noise of a `spread`; with a large one, whatever is drawn looks sure."""

    name = "random"

    def __init__(self, vocabulary: int, seed: int, spread: float = 3.0) -> None:
        self._random = np.random.default_rng(seed)
        self._vocabulary, self._spread = vocabulary, spread

    def logits(self, *shape: int) -> Floats:
        noise = self._random.normal(0, self._spread, (*shape, self._vocabulary))
        return noise.astype(np.float32)

    def encode(self, image: PatchedImage) -> Floats:
        raise NotImplementedError

    def embed(self, token_ids: Ids) -> Floats:
        return np.zeros((len(np.asarray(token_ids)), 1), np.float32)

    def start(self, capacity: int) -> Sequence:
        return Counted()

    def extend(
        self, sequence: Sequence, embeddings: Floats, positions: npt.NDArray[np.int64]
    ) -> Floats:
        assert isinstance(sequence, Counted)
        sequence.length += len(embeddings)
        return self.logits()

    def fork(self, sequence: Sequence, count: int, capacity: int) -> list[Sequence]:
        return [Counted(sequence.length) for _ in range(count)]

    def decode(self, sequences: List[Sequence], token_ids: Ids) -> Floats:
        for sequence in sequences:
            assert isinstance(sequence, Counted)
            sequence.length += 1
        return self.logits(len(sequences))
