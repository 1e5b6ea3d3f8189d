"""Putting requests to a model: pictures seen once, prompts prefilled together, replies begun."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from functools import cached_property
from typing import Final

import numpy as np

from idetex_edge.bundle import Bundle
from idetex_edge.decoding import Reply, finish
from idetex_edge.drafting import Drafter
from idetex_edge.encoded import EncodedImage
from idetex_edge.engines.protocol import DraftingEngine, Engine
from idetex_edge.engines.protocol import Sequence as Cached
from idetex_edge.errors import RequestError
from idetex_edge.grammar import Constraint
from idetex_edge.image import ImageSource, load_image
from idetex_edge.positions import mrope_positions
from idetex_edge.requests import Request
from idetex_edge.sharing import Prefilled, Tail, prefill
from idetex_edge.tokenizer import BundleTokenizer
from idetex_edge.vocabulary import IMAGE_PAD

_QUESTION: Final = 64
"""Room for what is put behind a picture for once, before its sequence has to grow."""


class Asker:
    """One bundle on one engine, to which requests about pictures are put."""

    def __init__(self, bundle: Bundle, engine: Engine, max_pixels: int) -> None:
        """Raise BundleError when the tokenizer cannot be read; see `Assessor` for `max_pixels`."""
        self.bundle, self.engine = bundle, engine
        self.tokenizer = BundleTokenizer(bundle)
        self._manifest = bundle.manifest
        self._stop = frozenset(self._manifest.stop)
        self._max_pixels = max_pixels
        self._maker = (bundle.identity, engine.name)

    @cached_property
    def drafter(self) -> Drafter | None:
        """What answers are expected to say, where bundle and engine have a use for it."""
        name = self._manifest.drafts
        if not name or not isinstance(self.engine, DraftingEngine) or not self.engine.drafts:
            return None
        return Drafter.load(self.bundle.file(name))

    def see(self, picture: ImageSource) -> EncodedImage:
        """Load a picture and run the vision encoder on it; raises ImageError when it is no good."""
        started = time.perf_counter()
        image = load_image(picture, self._max_pixels)
        patched = self._manifest.preprocessor.patchify(image)
        merge = self._manifest.vision.merge
        return EncodedImage(
            image=image,
            features=self.engine.encode(patched),
            rows=patched.grid[0] // merge,
            columns=patched.grid[1] // merge,
            path=os.fspath(picture) if isinstance(picture, str | os.PathLike) else None,
            encode_ms=milliseconds(time.perf_counter() - started),
            made_by=self._maker,
            engine=self.engine,
        )

    def accept(self, seen: EncodedImage) -> None:
        """Make sure that requests can be put about a picture that was encoded or loaded before.

        Raises RequestError when another Assessor, bundle or engine encoded it.
        """
        if seen.engine is self.engine:
            return
        if seen.engine is not None:
            raise RequestError(
                "this picture was encoded by another Assessor; encode it with the one you ask"
            )
        if seen.made_by != self._maker:
            raise RequestError(
                "this picture was encoded with another bundle or engine than "
                f"{self._manifest.name} on {self.engine.name}; encode it again"
            )
        seen.take_up(self.engine)

    def prefill(self, seen: EncodedImage, requests: Sequence[Request]) -> list[Prefilled]:
        """Prefill all prompts, in their order; those with the same head fork from one stem."""
        by_head: dict[str, list[int]] = {}
        for index, request in enumerate(requests):
            head = self._manifest.prompts[request.task].head(seen.columns, seen.rows)
            by_head.setdefault(head, []).append(index)
        found: dict[int, Prefilled] = {}
        for head, members in by_head.items():
            stem = self._stem(seen, head)
            tails = [self._tail(requests[member], stem.length) for member in members]
            found.update(zip(members, prefill(self.engine, stem, tails), strict=True))
        return [found[index] for index in range(len(requests))]

    def reply(self, prompt: Prefilled, request: Request) -> Reply:
        """Begin the answer to a request that is to be written (its `limit` is not 0)."""
        sequence, constraint = prompt.sequence, None
        assert sequence is not None, "requests with a limit keep their sequence"
        limit = min(request.limit, self._manifest.text.max_context - sequence.length)
        if request.grammar is not None:
            constraint = Constraint(self.tokenizer.guide, request.grammar)
        return Reply(sequence, prompt.logits, self._stop, limit, constraint)

    def answers(self, seen: EncodedImage, requests: Sequence[Request]) -> list[Reply]:
        """Prefill requests and write all their answers, as one batch."""
        prompts = self.prefill(seen, requests)
        replies = [self.reply(*pair) for pair in zip(prompts, requests, strict=True)]
        finish(self.engine, replies, self.drafter)
        return replies

    def _stem(self, seen: EncodedImage, head: str) -> Cached:
        """The sequence [head + picture], prefilled the first time it is needed."""
        if head not in seen.stems:
            before = self.tokenizer.encode(head)
            image_token = self._manifest.tokens[IMAGE_PAD]
            ids = [*before, *([image_token] * len(seen.features))]
            merge = self._manifest.vision.merge
            positions, _ = mrope_positions(
                ids,
                image_token=image_token,
                grid=(seen.rows * merge, seen.columns * merge),
                merge_size=merge,
            )
            embeddings = np.concatenate((self.engine.embed(before), seen.features))
            stem = self.engine.start(min(len(ids) + _QUESTION, self._manifest.text.max_context))
            self.engine.extend(stem, embeddings, positions)
            seen.stems[head] = stem
        return seen.stems[head]

    def _tail(self, request: Request, before: int) -> Tail:
        tokens = self.tokenizer.encode(self._manifest.prompts[request.task].tail(**request.fields))
        room = self._manifest.text.max_context - before - len(tokens)
        if room < min(request.limit, 1):
            raise RequestError(
                f"picture and question take {before + len(tokens)} tokens and leave no room for an "
                f"answer in the model's {before + len(tokens) + room}; ask a shorter question"
            )
        return Tail(tokens, min(request.limit, room))


def milliseconds(seconds: float) -> float:
    """Seconds as milliseconds, to the microsecond."""
    return round(seconds * 1000, 3)
