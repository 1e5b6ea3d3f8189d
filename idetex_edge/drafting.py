"""Drafts: what a model usually says next, so that it need only be checked, several tokens at once.

Speculative decoding (Leviathan et al., arXiv 2211.17192) with a table instead of a second model:
quality is described in few words, and what was said before tells most of what comes. Greedy answers
stay what they are, since a draft is kept only as far as the model says the same.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from idetex_edge.errors import BundleError

LONGEST: Final = 12
"""The most tokens of a draft: what is read beside the first costs time, right or wrong."""

_CONTEXT: Final = 8
_LEAST_SEEN: Final = 2
_LEAST_SURE: Final = 0.5
_END: Final = -1
"""Stands behind every answer, and what is drafted up to it ends there."""

Context = tuple[int, ...]


class Drafter:
    """A table of contexts, up to 8 tokens, and what mostly follows them in a model's answers.

    The longest context that the table has decides; None there says that nothing mostly follows.
    """

    def __init__(self, following: Mapping[Context, int | None]) -> None:
        self._following = following

    @classmethod
    def of_answers(cls, answers: Iterable[Sequence[int]]) -> Drafter:
        """Learn from whole answers, as token ids."""
        seen: dict[Context, Counter[int]] = defaultdict(Counter)
        for answer in answers:
            tokens = (*answer, _END)
            for at, token in enumerate(tokens):
                for length in range(1, min(at, _CONTEXT) + 1):
                    seen[tokens[at - length : at]][token] += 1
        found: dict[Context, int | None] = {}
        drafter = cls(found)
        for context in sorted(seen, key=lambda context: (len(context), context)):
            total = seen[context].total()
            token, count = seen[context].most_common(1)[0]
            follows = token if count >= _LEAST_SURE * total and token != _END else None
            if total >= _LEAST_SEEN and drafter._next(context[1:]) != follows:
                found[context] = follows
        return drafter

    @classmethod
    def load(cls, path: Path) -> Drafter:
        """Read a file that `to_json` gave the text of; raises BundleError when it is none."""
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))
            return cls({tuple(context): follows for *context, follows in entries})
        except (OSError, ValueError, TypeError) as error:
            raise BundleError(f"cannot read the drafts in {path}: {error}; export again") from None

    def to_json(self) -> str:
        """The table as JSON: lists of a context's tokens and, last, of what follows or null."""
        entries = [[*context, follows] for context, follows in sorted(self._following.items())]
        return json.dumps(entries, separators=(",", ":")) + "\n"

    def __len__(self) -> int:
        return len(self._following)

    def draft(self, said: Sequence[int], limit: int) -> list[int]:
        """What mostly follows in an answer that begins with `said`: up to `limit` tokens."""
        context = tuple(said[-_CONTEXT:])
        drafted: list[int] = []
        while len(drafted) < min(limit, LONGEST):
            token = self._next(context)
            if token is None:
                break
            drafted.append(token)
            context = (*context, token)[-_CONTEXT:]
        return drafted

    def _next(self, context: Context) -> int | None:
        for start in range(len(context)):
            if context[start:] in self._following:
                return self._following[context[start:]]
        return None
