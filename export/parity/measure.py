"""Bundle and checkpoint on the same pictures, compared (see `export.parity`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import transformers

from export.graphs.write import Advance
from export.parity.answers import Answer, Answering
from export.parity.pictures import Photograph
from export.parity.reference import Reference
from export.parity.report import Parity, PictureParity
from idetex_edge.boxes import overlap
from idetex_edge.bundle import Bundle
from idetex_edge.engines import Engine
from idetex_edge.engines.protocol import Floats
from idetex_edge.parsing import parse_grounding
from idetex_edge.tokenizer import BundleTokenizer


def measure_parity(
    reference: Reference,
    bundle: Bundle,
    engine: Engine,
    pictures: Sequence[Photograph],
    steps: int,
    advance: Advance,
) -> Parity:
    """Let both read `pictures` and up to `steps` tokens of each answer."""
    answering = Answering(bundle, engine)
    results: list[PictureParity] = []
    for done, picture in enumerate(pictures):
        advance("comparing with the checkpoint", done, len(pictures))
        results.append(_compare(picture, reference, bundle, answering, steps))
    advance("comparing with the checkpoint", len(pictures), len(pictures))
    return Parity(f"transformers {transformers.__version__}", tuple(results))


def _compare(
    picture: Photograph,
    reference: Reference,
    bundle: Bundle,
    answering: Answering,
    steps: int,
) -> PictureParity:
    patched = bundle.manifest.preprocessor.patchify(picture.load())
    features = answering.engine.encode(patched)
    tally = _Tally(answering.tokenizer)
    answered = answering.answer(patched, features, steps)
    theirs = reference.read([answer for answer, _ in answered], patched).logits
    for (answer, ours), expected in zip(answered, theirs, strict=True):
        tally.add(answer, ours, expected)
    return PictureParity(
        picture=picture.name,
        grid=patched.grid,
        logits_error=tally.largest / tally.scale,
        steps=tally.steps,
        agreed=tally.agreed,
        choices=tally.choices,
        chosen_alike=tally.chosen_alike,
        boxes=len(tally.overlaps),
        box_overlap=float(np.mean(tally.overlaps)) if tally.overlaps else None,
        vision_cosine=_cosine(features, reference.features(patched)),
    )


class _Tally:
    """What a picture's answers add up to."""

    def __init__(self, tokenizer: BundleTokenizer) -> None:
        self._tokenizer = tokenizer
        self.largest = self.scale = 0.0
        self.steps = self.agreed = self.choices = self.chosen_alike = 0
        self.overlaps: list[float] = []

    def add(self, answer: Answer, ours: Floats, theirs: Floats) -> None:
        # Not max(): that would lose a NaN.
        self.largest = float(np.maximum(self.largest, np.abs(ours - theirs).max()))
        self.scale = float(np.maximum(self.scale, np.abs(theirs).max()))
        if answer.options:
            letters = list(self._tokenizer.letter_ids(answer.options))
            self.choices += 1
            alike = ours[0, letters].argmax() == theirs[0, letters].argmax()
            self.chosen_alike += int(alike)
            return
        said = theirs.argmax(-1)
        self.steps += len(ours)
        self.agreed += int((ours.argmax(-1) == said).sum())
        if answer.task == "grounding":
            self.overlaps += self._overlaps(answer.tokens, [int(token) for token in said[:-1]])

    def _overlaps(self, ours: list[int], theirs: list[int]) -> list[float]:
        """Overlap of each box with the checkpoint's in the same place; 0 where it has none."""
        mine, other = (parse_grounding(self._tokenizer.decode(ids)) for ids in (ours, theirs))
        alike = [
            overlap(a.box_1000, b.box_1000) if a.type == b.type else 0.0
            for a, b in zip(mine, other, strict=False)
        ]
        return alike + [0.0] * (len(mine) - len(alike))


def _cosine(a: Floats, b: Floats) -> float:
    """Give the smallest cosine between two tokens' features."""
    products = (a.astype(np.float64) * b).sum(-1)
    norms = np.linalg.norm(a.astype(np.float64), axis=-1) * np.linalg.norm(b, axis=-1)
    return float((products / norms).min())
