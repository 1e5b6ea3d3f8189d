"""A scenario's requests in the form in which peers take them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from PIL import Image

from idetex_edge.bundle import load_manifest
from idetex_edge.measuring.scenarios import Scenario
from idetex_edge.measuring.worker import Measured
from idetex_edge.preprocess import smart_resize
from idetex_edge.vocabulary import VISION_END, VISION_START


@dataclass(frozen=True, slots=True)
class Asked:
    """Text in front of the picture's tokens, text behind them, and how many tokens to write.

    Neither text holds the markers around the picture.
    """

    before: str
    behind: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Timed:
    """Seconds that one request took, and the tokens of its prompt.

    first: until the first token was known, vision included.
    """

    vision: float | None
    first: float
    whole: float
    prompt_tokens: int
    prefill: float | None


class Peer(Protocol):
    """A runtime that answers one request at a time."""

    def ask(self, picture: Path, asked: Asked) -> Timed:
        """Answer one request with exactly as many tokens as are asked for."""
        ...

    def peak_memory(self) -> int:
        """Bytes of memory that it took at its peak."""
        ...


class OneByOne:
    """A peer as a contender: a scenario's requests are put one after another."""

    def __init__(self, peer: Peer, bundle: Path) -> None:
        """`bundle` gives prompts and sizes, as our engines use them."""
        self._peer, self._manifest = peer, load_manifest(bundle)

    def run(self, scenario: Scenario, picture: Path) -> Measured:
        """See `Contender.run`."""
        asked = self._asked(scenario, picture)
        started = time.perf_counter()
        timed = [self._peer.ask(picture, one) for one in asked]
        whole = time.perf_counter() - started
        figures = {"first token": 1000 * timed[0].first, "end to end": 1000 * whole}
        if (vision := timed[0].vision) is not None:
            figures["vision"] = 1000 * vision
        if len(timed) == 1 and (prefill := timed[0].prefill) is not None:
            figures["prefill"] = timed[0].prompt_tokens / prefill
        written = sum(one.tokens - 1 for one in asked)
        if written:
            figures["decode"] = written / sum(one.whole - one.first for one in timed)
        return Measured(figures, [one.tokens for one in asked])

    def peak_memory(self) -> int:
        """See `Contender.peak_memory`."""
        return self._peer.peak_memory()

    def _asked(self, scenario: Scenario, picture: Path) -> list[Asked]:
        own = self._manifest.preprocessor
        side = own.patch_size * own.merge_size
        with Image.open(picture) as image:
            width, height = image.size
        rows, columns = smart_resize(height, width, side, own.min_pixels, own.max_pixels)
        found: list[Asked] = []
        for request in scenario.requests:
            prompt = self._manifest.prompts[request.task]
            head = prompt.head(columns // side, rows // side).removesuffix(VISION_START)
            tail = prompt.tail(**request.fields).removeprefix(VISION_END)
            # What we read from a prompt's logits is a peer's first token.
            found.append(Asked(head, tail, max(request.limit, 1)))
        return found
