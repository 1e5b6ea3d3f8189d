"""The bundle's tokenizer, and the tokens that answers are read from."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Final

from llguidance import LLTokenizer
from tokenizers import Tokenizer

from idetex_edge.bundle import TOKENIZER, Bundle
from idetex_edge.errors import BundleError
from idetex_edge.vocabulary import LEVELS

LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class BundleTokenizer:
    """Text to ids and back; special tokens in the text become their ids."""

    def __init__(self, bundle: Bundle) -> None:
        """Read the bundle's tokenizer; raises BundleError when it cannot be understood."""
        self._manifest = bundle.manifest
        try:
            self._json = bundle.file(TOKENIZER).read_text(encoding="utf-8")
            self._tokenizer = Tokenizer.from_str(self._json)
        except Exception as error:  # the library's own errors are bare Exceptions
            raise _unreadable(error) from None

    def encode(self, text: str) -> list[int]:
        """The ids of a text, nothing added."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens included."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=False)

    @cached_property
    def guide(self) -> LLTokenizer:
        """The same vocabulary for grammars, in which the manifest's `stop` tokens end a text."""
        try:
            return LLTokenizer(
                self._json,
                n_vocab=self._manifest.text.vocab,
                eos_token=list(self._manifest.stop),
                # Slices speed up free text, of which our grammars have none, and are slow to make.
                slices=[],
            )
        except Exception as error:  # the library's own errors are bare Exceptions
            raise _unreadable(error) from None

    @cached_property
    def level_ids(self) -> tuple[int, ...]:
        """The first token of each level word behind a space, worst level first."""
        return self._first_tokens([f" {level}" for level in LEVELS])

    def letter_ids(self, count: int) -> tuple[int, ...]:
        """The tokens of the first `count` option letters."""
        return self._first_tokens(list(LETTERS[:count]))

    def _first_tokens(self, words: Sequence[str]) -> tuple[int, ...]:
        ids = tuple(self.encode(word)[0] for word in words)
        if len(set(ids)) != len(ids):
            raise BundleError(
                f"the bundle's tokenizer cannot tell {', '.join(words)} apart by their first "
                "tokens, so no probabilities can be read; use another checkpoint"
            )
        return ids


def _unreadable(error: Exception) -> BundleError:
    reason = str(error).splitlines()[0] if str(error) else repr(error)
    return BundleError(f"cannot read the bundle's {TOKENIZER}: {reason}; export the bundle again")
