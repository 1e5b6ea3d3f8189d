"""The front door: every task on a picture, each sharing what the others computed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal, TypeAlias, overload

import numpy as np

from idetex_edge.asking import Asker, milliseconds
from idetex_edge.boxes import overlap, to_thousandths
from idetex_edge.bundle import Bundle, open_bundle
from idetex_edge.confidence import box_confidences
from idetex_edge.decoding import Reply, finish, generate
from idetex_edge.describing import read_description
from idetex_edge.encoded import EncodedImage
from idetex_edge.engines import AUTO, load_engine
from idetex_edge.engines.protocol import Floats
from idetex_edge.errors import EngineError
from idetex_edge.hub import bundle_folder
from idetex_edge.image import MAX_PIXELS, ImageSource
from idetex_edge.parsing import parse_grounding, plain_text
from idetex_edge.requests import (
    DESCRIPTION,
    GROUNDING,
    SCORE,
    Request,
    choice_request,
    locate_request,
    question_request,
    region_request,
    single_request,
)
from idetex_edge.results import Answer, Assessment, Description, Distortion, Score
from idetex_edge.vocabulary import BOX_SCALE

Picture: TypeAlias = ImageSource | EncodedImage
"""What every task takes: a path, bytes, PIL image, array or open file, or one already encoded."""

NANO: Final = Path(__file__).parent / "models" / "nano"
"""The bundle that comes with the package."""

_SAME_BOX: Final = 0.5
"""Overlap from which a box of the description means a box of the grounding."""


class Assessor:
    """Assesses pictures with one bundle on one engine. Not for several threads at once."""

    def __init__(
        self,
        bundle: str | os.PathLike[str] | None = None,
        *,
        engine: str = AUTO,
        threads: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        """Open a bundle folder, by default the bundled nano, on the best engine or a named one.

        threads: CPU threads to use; None for all physical cores. max_pixels: pictures with more
        are refused before they are decoded. Raises BundleError when the bundle is not whole and
        EngineError when the engine is unknown or does not work here.
        """
        opened = open_bundle(NANO if bundle is None else bundle)
        self._engine = load_engine(engine, opened, threads)
        self._asker = Asker(opened, self._engine, max_pixels)
        self._tokenizer = self._asker.tokenizer

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str],
        *,
        engine: str = AUTO,
        threads: int | None = None,
        max_pixels: int = MAX_PIXELS,
        revision: str | None = None,
    ) -> Assessor:
        """Open a bundle folder or a bundle on the Hugging Face hub (`owner/name`, downloaded once).

        Raises BundleError when it cannot be had, and as the constructor does.
        """
        folder = bundle_folder(name, revision)
        return cls(folder, engine=engine, threads=threads, max_pixels=max_pixels)

    @property
    def bundle(self) -> Bundle:
        """The bundle in use."""
        return self._asker.bundle

    @property
    def model(self) -> str:
        """The model's name, as in its manifest."""
        return self.bundle.manifest.name

    @property
    def engine(self) -> str:
        """The engine in use, such as "onnx:cpu"."""
        return self._engine.name

    def encode(self, picture: ImageSource) -> EncodedImage:
        """Load a picture and run the vision encoder on it; raises ImageError when it is no good."""
        return self._asker.see(picture)

    def score(self, picture: Picture) -> Score:
        """How good the picture is, read from the probabilities of the five level words."""
        return self._read_score(self._asker.prefill(self._seen(picture), [SCORE])[0].logits)

    def ground(
        self,
        picture: Picture,
        region: Sequence[int] | None = None,
        *,
        region_1000: Sequence[int] | None = None,
    ) -> list[Distortion]:
        """Find all distortions, or those inside a region (x1, y1, x2, y2) in source pixels.

        region_1000: the region in 0..1000 of the picture instead, put to the model as it is.
        Raises RequestError when the region is empty or reaches out of the picture.
        """
        seen = self._seen(picture)
        if region_1000 is not None:
            box = to_thousandths(region_1000, BOX_SCALE, BOX_SCALE)
        elif region is not None:
            box = to_thousandths(region, *seen.image.size)
        else:
            return self._grounded(seen, GROUNDING)
        return self._grounded(seen, region_request(box))

    def locate(self, picture: Picture, distortion: str) -> list[Distortion]:
        """Find one type of distortion; raises RequestError when there is no such type."""
        request = locate_request(distortion)
        return self._grounded(self._seen(picture), request)

    def ask(self, picture: Picture, question: str, choices: Sequence[str]) -> Answer:
        """Put a multiple-choice question; the answer is read from the letters' probabilities.

        Raises RequestError without a question, with fewer than two choices, or with over 26.
        """
        return self.ask_all(picture, [(question, choices)])[0]

    def ask_all(
        self, picture: Picture, questions: Sequence[tuple[str, Sequence[str]]]
    ) -> list[Answer]:
        """Put several multiple-choice questions about one picture, in their order; see `ask`."""
        requests = [choice_request(question, choices) for question, choices in questions]
        if not requests:
            return []
        prompts = self._asker.prefill(self._seen(picture), requests)
        return [
            self._read_choice(prompt.logits, choices)
            for prompt, (_, choices) in zip(prompts, questions, strict=True)
        ]

    def answer(self, picture: Picture, question: str) -> str:
        """Put an open question about distortions, answered in a sentence, markers and all.

        Raises RequestError where the question is empty or the model has not learnt such questions.
        """
        request = question_request(question)
        reply = self._asker.answers(self._seen(picture), [request])[0]
        return self._tokenizer.decode(reply.tokens)

    @overload
    def describe(
        self, picture: Picture, distortion: str | None = None, *, stream: Literal[False] = False
    ) -> Description: ...

    @overload
    def describe(
        self, picture: Picture, distortion: str | None = None, *, stream: Literal[True]
    ) -> Iterator[str]: ...

    def describe(
        self, picture: Picture, distortion: str | None = None, *, stream: bool = False
    ) -> Description | Iterator[str]:
        """Describe the picture's quality in words, or what one type of distortion does to it.

        With `stream`, piece by piece as it is written; pieces join to the description's `text`,
        markers and all. Raises RequestError when there is no such type, or the model has not
        learnt to assess one alone.
        """
        request = DESCRIPTION if distortion is None else single_request(distortion)
        seen = self._seen(picture)
        if stream:
            return self._stream(seen, request)
        return self._read_description(self._asker.answers(seen, [request])[0], seen)

    def assess(self, picture: Picture) -> Assessment:
        """Everything at once: score, distortions and description, over one shared prefix."""
        seen = self._seen(picture)
        started = time.perf_counter()
        requests = (SCORE, GROUNDING, DESCRIPTION)
        prompts = self._asker.prefill(seen, requests)
        score = self._read_score(prompts[0].logits)
        prefilled = time.perf_counter()
        replies = [self._asker.reply(*pair) for pair in zip(prompts[1:], requests[1:], strict=True)]
        finish(self._engine, replies, self._asker.drafter)
        found = self._read_boxes(replies[0], seen)
        description = self._read_description(replies[1], seen)
        decoded = time.perf_counter()
        keys = (same_as_found(key, found) for key in description.key_distortions)
        return Assessment(
            score=score.score,
            mos=score.mos,
            level=score.level,
            level_probabilities=score.level_probabilities,
            distortions=tuple(found),
            key_distortions=tuple(dict.fromkeys(keys)),
            description=plain_text(description.text),
            timings={
                "encode": seen.encode_ms,
                "prefill": milliseconds(prefilled - started),
                "decode": milliseconds(decoded - prefilled),
                "total": milliseconds(seen.encode_ms / 1000 + decoded - started),
            },
            model=self.model,
            width=seen.image.width,
            height=seen.image.height,
            path=seen.path,
            image=seen.image,
        )

    def _seen(self, picture: Picture) -> EncodedImage:
        if not isinstance(picture, EncodedImage):
            return self.encode(picture)
        self._asker.accept(picture)
        return picture

    def _stream(self, seen: EncodedImage, request: Request) -> Iterator[str]:
        reply = self._asker.reply(self._asker.prefill(seen, [request])[0], request)
        told = 0
        for _ in generate(self._engine, [reply], self._asker.drafter):
            piece = self._tokenizer.decode(reply.tokens[told:])
            # Part of a character decodes to U+FFFD until its other bytes are there.
            if piece and (reply.done or not piece.endswith("\ufffd")):
                yield piece
                told = len(reply.tokens)

    def _grounded(self, seen: EncodedImage, request: Request) -> list[Distortion]:
        return self._read_boxes(self._asker.answers(seen, [request])[0], seen)

    def _read_boxes(self, reply: Reply, seen: EncodedImage) -> list[Distortion]:
        pieces = [self._tokenizer.decode([token]) for token in reply.tokens]
        confidences = box_confidences(pieces, reply.probabilities)
        found = parse_grounding(self._tokenizer.decode(reply.tokens))
        return [
            replace(distortion, confidence=confidence).placed(*seen.image.size)
            for distortion, confidence in zip(found, confidences, strict=True)
        ]

    def _read_description(self, reply: Reply, seen: EncodedImage) -> Description:
        return read_description(self._tokenizer.decode(reply.tokens), *seen.image.size)

    def _read_score(self, logits: Floats) -> Score:
        return Score.from_probabilities(_softmax(logits[list(self._tokenizer.level_ids)]))

    def _read_choice(self, logits: Floats, choices: Sequence[str]) -> Answer:
        probabilities = _softmax(logits[list(self._tokenizer.letter_ids(len(choices)))])
        best = probabilities.index(max(probabilities))
        return Answer(choices[best], best, tuple(probabilities))


def same_as_found(key: Distortion, found: Sequence[Distortion]) -> Distortion:
    """The grounded distortion that a described one means, or itself where there is none."""
    alike = [d for d in found if d.type == key.type]
    best = max(alike, key=lambda d: overlap(d.box_1000, key.box_1000), default=key)
    return best if overlap(best.box_1000, key.box_1000) >= _SAME_BOX else key


def _softmax(logits: Floats) -> list[float]:
    if not np.isfinite(logits).all():
        raise EngineError("the model's logits overflowed; try another engine, or check the bundle")
    weights = np.exp(logits.astype(np.float64) - logits.max())
    return [float(weight) for weight in weights / weights.sum()]
