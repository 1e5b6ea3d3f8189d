"""What a grounding answer may look like, so that it always parses.

The grammar is Lark text for llguidance: the layout of ViDA-UGC's answers, in which types come in
any order and each at most once, so that an answer always ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLTokenizer

from idetex_edge.errors import EngineError
from idetex_edge.vocabulary import (
    BOX_END,
    BOX_START,
    DISTORTIONS,
    NO_DISTORTION,
    OBJECT_REF_END,
    OBJECT_REF_START,
    SEVERITIES,
)

MOST_BOXES: Final = 16
"""Boxes allowed under one type and severity; ViDA-trained models write up to 13."""


def grounding_grammar(types: Sequence[str] = DISTORTIONS, separator: str = "\n") -> str:
    """Lark text for answers about `types`; `separator` stands between a type and its boxes.

    Full stops at the end, words behind "No distortion" and line breaks between severities are
    allowed because ViDA-trained models write them.
    """
    gap = separator.replace("\n", "\\n")
    severities = " | ".join(f'"{severity.capitalize()}"' for severity in SEVERITIES)
    choices = " | ".join(
        f"line_{i} after_line::set_bit({i}) %if bit_clear({i})" for i in range(len(types))
    )
    rules = [
        f'start: "{NO_DISTORTION}" (" affects this region")? "."? | lines::0x0',
        # The parameter's bits are the types that have had their line.
        f"lines::_: {choices}",
        f'after_line::_: "." | "" | "\\n" lines::_ %if not(is_ones([0:{len(types)}]))',
        f"severity: {severities}",
        f'box: {BOX_START} "(" NUMBER "," NUMBER "),(" NUMBER "," NUMBER ")" {BOX_END}',
        "NUMBER: /0|[1-9][0-9]{0,2}|1000/",
    ]
    for i, kind in enumerate(types):
        rules += [
            f'line_{i}: "{kind}:{gap}" part_{i} ("\\n"? part_{i}){{0,{len(SEVERITIES) - 1}}}',
            f'part_{i}: {OBJECT_REF_START} severity " {kind.lower()}" {OBJECT_REF_END} '
            f"box{{1,{MOST_BOXES}}}",
        ]
    return "\n".join(rules)


class Constraint:
    """Where one answer stands in a grammar. Takes every token that is fed, forced or chosen."""

    def __init__(self, tokenizer: LLTokenizer, grammar: str) -> None:
        self._matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_lark(grammar))
        self._check()

    def allowed(self, vocabulary: int) -> npt.NDArray[np.int64]:
        """Which of the vocabulary's tokens may come next: their ids, int64, at least one."""
        packed = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        return np.flatnonzero(np.unpackbits(packed, count=vocabulary, bitorder="little"))

    def take(self, token: int) -> None:
        """Go on by one token; raises EngineError when the grammar does not allow it."""
        self._matcher.consume_token(token)
        self._check()

    def forced(self) -> list[int]:
        """The tokens that must come next whatever the model says, taken; often none."""
        tokens = self._matcher.compute_ff_tokens()
        if tokens:
            self._matcher.consume_tokens(tokens)
            self._check()
        return tokens

    @property
    def finished(self) -> bool:
        """Whether nothing more may come."""
        return self._matcher.is_stopped()

    def _check(self) -> None:
        if self._matcher.is_error():
            reason = self._matcher.get_error().splitlines()[0]
            raise EngineError(f"the answer's grammar failed: {reason}; report this as a bug")
