"""The one seam between task logic and hardware: what every engine can do.

Time and memory are spent where a method says so; nothing is computed ahead or kept in secret.
"""

from __future__ import annotations

from collections.abc import Sequence as List
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from idetex_edge.preprocess import PatchedImage

Floats = npt.NDArray[np.float32]
Ids = npt.ArrayLike
"""Token ids: anything numpy reads as integers of shape [n]."""


class Sequence(Protocol):
    """Tokens that an engine holds in its KV cache; made by `start` and `fork`.

    It belongs to the engine that made it, and its memory is freed when it is dropped.
    """

    @property
    def length(self) -> int:
        """How many tokens it holds."""
        ...

    @property
    def next_position(self) -> int:
        """The M-RoPE position, on all three axes, of a text token put behind it."""
        ...


class Engine(Protocol):
    """Runs one bundle. Not for use from several threads at once, but see `ParallelEngine`.

    Raises RequestError where arguments do not fit the model (a token outside the vocabulary, more
    tokens than its context) and EngineError where the hardware or runtime fails.
    """

    @property
    def name(self) -> str:
        """The name it is asked for by, such as "onnx:cpu"."""
        ...

    def encode(self, image: PatchedImage) -> Floats:
        """Turn a picture into features, float32 [merged tokens, hidden], in raster order."""
        ...

    def embed(self, token_ids: Ids) -> Floats:
        """Look up n tokens: float32 [n, hidden]."""
        ...

    def start(self, capacity: int) -> Sequence:
        """Make an empty sequence with room for `capacity` tokens; it grows when they are more."""
        ...

    def extend(
        self, sequence: Sequence, embeddings: Floats, positions: npt.NDArray[np.int64]
    ) -> Floats:
        """Append n >= 1 tokens and return the last one's logits, float32 [vocab].

        embeddings: float32 [n, hidden]. positions: int64 [3, n], M-RoPE time, height and width.
        """
        ...

    def fork(self, sequence: Sequence, count: int, capacity: int) -> list[Sequence]:
        """Make `count` sequences that continue from this one, each with room for `capacity` tokens.

        The original stays as it is; the forks decode together as one batch.
        """
        ...

    def decode(self, sequences: List[Sequence], token_ids: Ids) -> Floats:
        """Append one text token to each of b sequences; logits float32 [b, vocab], in their order.

        Each token takes its sequence's `next_position`. Lengths may differ, and any non-empty
        sequences of this engine may decode together, forks of one another most cheaply.
        """
        ...


@runtime_checkable
class DraftingEngine(Engine, Protocol):
    """An engine that reads several tokens at once, and can take back what was not meant."""

    @property
    def drafts(self) -> bool:
        """Whether this bundle's graphs can."""
        ...

    def follow(self, sequence: Sequence, token_ids: Ids) -> Floats:
        """Append n text tokens; logits float32 [n, vocab] of each."""
        ...

    def forget(self, sequence: Sequence, count: int) -> None:
        """Take back the last `count` text tokens."""
        ...


@runtime_checkable
class ParallelEngine(Engine, Protocol):
    """An engine that several threads may use at once to continue different sequences."""

    @property
    def lanes(self) -> int:
        """How many threads are worth it, and 1 in a lane.

        Where it is 2 or more, forks of a sequence share no memory, in lanes too.
        """
        ...

    def lane(self) -> AbstractContextManager[None]:
        """Keep the calls that this thread makes inside to this thread alone."""
        ...


@runtime_checkable
class KeepingEngine(Engine, Protocol):
    """An engine that gives a sequence's keys and values away, and takes them back."""

    def keep(self, sequence: Sequence) -> npt.NDArray[np.floating[Any]]:
        """Copy a sequence's keys and values, in a form that this kind of engine knows."""
        ...

    def restore(self, kept: npt.NDArray[np.floating[Any]], next_position: int) -> Sequence:
        """Make the sequence again; raises RequestError when the array is none of this model's."""
        ...
