"""What every engine refuses, in the same words."""

from __future__ import annotations

from collections.abc import Sequence as List

import numpy as np
import numpy.typing as npt

from idetex_edge.bundle import TextFacts
from idetex_edge.engines.protocol import Floats, Sequence
from idetex_edge.errors import RequestError


def check_room(facts: TextFacts, tokens: int) -> None:
    """Raise RequestError where a sequence of so many tokens does not fit the context."""
    if not 0 < tokens <= facts.max_context:
        raise RequestError(
            f"cannot hold {tokens} tokens; the model's context is 1..{facts.max_context}"
        )


def check_extension(
    facts: TextFacts, length: int, embeddings: Floats, positions: npt.NDArray[np.int64]
) -> None:
    """Raise RequestError where embeddings at positions cannot follow `length` tokens."""
    count = len(embeddings)
    if not count or positions.shape != (3, count):
        raise RequestError(
            f"cannot append {count} embeddings at positions of shape {positions.shape}; "
            "give one or more, and positions [3, n]"
        )
    check_room(facts, length + count)


def check_forks(facts: TextFacts, count: int, slots: int) -> None:
    """Raise RequestError where there cannot be so many forks with room for so many tokens."""
    if count < 1:
        raise RequestError(f"cannot fork into {count} sequences; ask for 1 or more")
    check_room(facts, slots)


def check_decoding(facts: TextFacts, sequences: List[Sequence], embeddings: Floats) -> None:
    """Raise RequestError where a token each cannot follow sequences."""
    if (
        not sequences
        or len({id(sequence) for sequence in sequences}) != len(sequences)
        or len(embeddings) != len(sequences)
    ):
        raise RequestError(
            f"cannot decode {len(embeddings)} tokens for {len(sequences)} sequences; "
            "give one token for each of one or more different sequences"
        )
    lengths = [sequence.length for sequence in sequences]
    if not min(lengths):
        raise RequestError("cannot decode an empty sequence; extend it with a prompt first")
    check_room(facts, max(lengths) + 1)
