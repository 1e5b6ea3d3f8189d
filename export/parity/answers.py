"""A bundle's own answers on a picture, with the logits of every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from export.parity.questions import CHOICES, WRITTEN
from idetex_edge.bundle import Bundle
from idetex_edge.decoding import feed
from idetex_edge.engines import Engine
from idetex_edge.engines.protocol import Floats
from idetex_edge.engines.protocol import Sequence as Cached
from idetex_edge.errors import ExportError
from idetex_edge.positions import mrope_positions
from idetex_edge.preprocess import PatchedImage
from idetex_edge.tokenizer import BundleTokenizer
from idetex_edge.vocabulary import IMAGE_PAD

STEPS: Final = 256
"""The most tokens of an answer that are compared."""


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """One task's prompt on a picture, and what was answered.

    head, tail: tokens up to and with the picture, and behind it. tokens: the answer, without the
    token that ends it; none for a multiple-choice question. options: how many it has.
    """

    task: str
    head: list[int]
    tail: list[int]
    tokens: list[int]
    options: int = 0

    @property
    def read(self) -> list[int]:
        """All tokens, prompt and answer."""
        return self.head + self.tail + self.tokens

    @property
    def steps(self) -> int:
        """How many logits are compared: behind the prompt, and behind each token of the answer."""
        return 1 + len(self.tokens)


class Answering:
    """An engine at work on one bundle."""

    def __init__(self, bundle: Bundle, engine: Engine) -> None:
        self.engine, self.tokenizer = engine, BundleTokenizer(bundle)
        self._manifest = bundle.manifest
        self._stop = frozenset(bundle.manifest.stop)

    def answer(
        self, patched: PatchedImage, features: Floats, steps: int
    ) -> list[tuple[Answer, Floats]]:
        """Answer every task: greedily, up to `steps` tokens; with logits [steps + 1, vocab]."""
        stems: dict[str, Cached] = {}
        found: list[tuple[Answer, Floats]] = []
        for task, fields, options in _asked():
            prompt = self._manifest.prompts[task]
            merge = self._manifest.vision.merge
            rows, columns = (side // merge for side in patched.grid)
            head = self.tokenizer.encode(prompt.head(columns, rows) + IMAGE_PAD * (rows * columns))
            tail = self.tokenizer.encode(prompt.tail(**fields))
            asked = Answer(task, head, tail, [], options)
            limit = 0 if options else steps
            found.append(self._follow(asked, patched, features, stems, limit, None))
        return found

    def repeat(self, answers: Sequence[Answer], patched: PatchedImage) -> list[Floats]:
        """Read given answers token by token; the logits behind each, [steps, vocab]."""
        features = self.engine.encode(patched)
        stems: dict[str, Cached] = {}
        return [
            self._follow(answer, patched, features, stems, len(answer.tokens), answer.tokens)[1]
            for answer in answers
        ]

    def _follow(
        self,
        asked: Answer,
        patched: PatchedImage,
        features: Floats,
        stems: dict[str, Cached],
        limit: int,
        given: list[int] | None,
    ) -> tuple[Answer, Floats]:
        prompt, context = len(asked.head) + len(asked.tail), self._manifest.text.max_context
        if prompt > context:
            raise ExportError(
                f"the {asked.task} prompt and a picture take {prompt} tokens and do not fit the "
                f"context of {context}; lower max_pixels in preprocessor_config.json"
            )
        room = min(prompt + limit, context)
        key = str(asked.head)
        if key not in stems:
            stems[key] = self._stem(asked.head, patched, features)
        sequence = self.engine.fork(stems[key], 1, room)[0]
        logits = [feed(self.engine, sequence, asked.tail)]
        written: list[int] = []
        while len(written) < limit and sequence.length < context:
            token = given[len(written)] if given else self._sayable(logits[-1])
            if given is None and token in self._stop:
                break
            written.append(token)
            logits.append(self.engine.decode([sequence], [token])[0])
        answer = Answer(asked.task, asked.head, asked.tail, written, asked.options)
        return answer, np.stack(logits)

    def _sayable(self, logits: Floats) -> int:
        # The checkpoint would take the picture's placeholder, which a model may say, for a picture.
        placeholder = self._manifest.tokens[IMAGE_PAD]
        return int(np.where(np.arange(len(logits)) == placeholder, -np.inf, logits).argmax())

    def _stem(self, head: list[int], patched: PatchedImage, features: Floats) -> Cached:
        placeholder = self._manifest.tokens[IMAGE_PAD]
        embeddings = self.engine.embed(head)
        embeddings[np.equal(head, placeholder)] = features
        positions, _ = mrope_positions(
            head,
            image_token=placeholder,
            grid=patched.grid,
            merge_size=self._manifest.vision.merge,
        )
        sequence = self.engine.start(len(head))
        self.engine.extend(sequence, embeddings, positions)
        return sequence


def _asked() -> list[tuple[str, Mapping[str, str], int]]:
    written: list[tuple[str, Mapping[str, str], int]] = [(task, {}, 0) for task in WRITTEN]
    return written + [
        (asked.task, asked.fields, asked.fields["options"].count("\n") + 1) for asked in CHOICES
    ]
