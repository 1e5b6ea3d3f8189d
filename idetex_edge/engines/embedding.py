"""The token embedding table of a bundle, read row by row from its memory-mapped file."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from idetex_edge.bundle import Bundle
from idetex_edge.errors import BundleError, RequestError

_TYPES: Final = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}


class EmbeddingTable:
    """Looks tokens up without loading the table: only the pages of rows asked for are touched."""

    def __init__(self, bundle: Bundle) -> None:
        """Map the bundle's embedding file; raises BundleError when its facts do not add up."""
        facts = bundle.manifest.embedding
        text = bundle.manifest.text
        expected = (text.vocab, text.hidden)
        if facts.dtype not in _TYPES or facts.shape != expected:
            raise BundleError(
                f"embedding table {facts.dtype} {list(facts.shape)} is not {' or '.join(_TYPES)} "
                f"{list(expected)}; export the bundle again"
            )
        try:
            mapped = np.memmap(bundle.file(facts.file), _TYPES[facts.dtype], "r", shape=expected)
        except (OSError, ValueError) as error:
            raise BundleError(
                f"cannot map {facts.file}: {error}; export the bundle again"
            ) from None
        # As a plain array, which is looked up in three times as fast as in memmap's own class.
        self._table = np.asarray(mapped)

    def rows(self, token_ids: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Embeddings of n tokens, float32 [n, hidden]; raises RequestError for unknown ids."""
        ids = np.asarray(token_ids, np.int64)
        if len(ids) and (ids.min() < 0 or ids.max() >= len(self._table)):
            raise RequestError(
                f"token ids {ids.min()}..{ids.max()} go beyond the vocabulary of "
                f"{len(self._table)}; use this bundle's tokenizer"
            )
        return self._table[ids].astype(np.float32)
