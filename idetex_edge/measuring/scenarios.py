"""What is measured: scenarios, pictures and metrics, as tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from PIL import Image

from idetex_edge.requests import DESCRIPTION, GROUNDING, SCORE, Request, choice_request

SIZES: Final = ((448, 448), (1280, 720))
"""Width and height of the pictures."""

_CHOICES: Final = ("Noise", "Motion blur", "Low clarity", "Overexposure")
_QUESTIONS: Final = (
    "What is the most significant distortion in this image?",
    "What distortion is in the upper left of this image?",
    "What distortion is in the lower right of this image?",
    "What distortion is in the middle of this image?",
    "Which distortion affects the background of this image?",
    "Which distortion is the most severe in this image?",
    "Which distortion is the least severe in this image?",
    "Which of these distortions covers the largest area?",
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """Requests about one picture, answered together by us and one after another by a peer.

    forced: whether answers go on to their limits whatever the model says, free of any grammar.
    """

    requests: tuple[Request, ...]
    forced: bool = False

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Scenario:
        """Read what `dataclasses.asdict` wrote."""
        return cls(tuple(Request(**request) for request in data["requests"]), data["forced"])

    def limited(self, tokens: int) -> Scenario:
        """The same with answers of at most `tokens` tokens."""
        return replace(
            self, requests=tuple(replace(r, limit=min(r.limit, tokens)) for r in self.requests)
        )


def questions(count: int) -> tuple[Request, ...]:
    """Ask so many multiple-choice questions; from the ninth on they repeat, with a number."""
    return tuple(
        choice_request(
            _QUESTIONS[i % len(_QUESTIONS)] + (f" ({i})" if i >= len(_QUESTIONS) else ""), _CHOICES
        )
        for i in range(count)
    )


def description(tokens: int) -> Scenario:
    """Ask for a description of so many tokens, no more and no less."""
    return Scenario((replace(DESCRIPTION, limit=tokens),), forced=True)


SCENARIOS: Final[Mapping[str, Scenario]] = {
    "score": Scenario((SCORE,)),
    "ask8": Scenario(questions(8)),
    "describe128": description(128),
    "assess": Scenario((SCORE, GROUNDING, DESCRIPTION)),
}
"""By name. `assess` is score, grounding and full description of one picture."""

UNITS: Final[Mapping[str, str]] = {
    "load": "ms",
    "vision": "ms",
    "first token": "ms",
    "prefill": "tok/s",
    "decode": "tok/s",
    "end to end": "ms",
    "peak memory": "MB",
    "energy": "J",
}
"""Metrics and their units.

load: from starting the process until its sessions are ready. vision: from the picture's file to its
features. first token: until the first answer's first token is known. prefill, decode: tokens of
prompts and of answers by the time they took; of answers written together, all are counted. end to
end: from the picture's file to all answers. peak memory: the process's largest resident set.
energy: what one run took above idle (`energy.py`), with all else that was done meanwhile.
"""


def picture(width: int, height: int, variant: int = 0) -> Image.Image:
    """Paint soft clouds with grain, RGB; variants differ by one pixel, so that no cache knows them.

    `variant` is 0..255.
    """
    chance = np.random.default_rng(0)
    clouds = np.zeros((height, width, 3), np.float32)
    for cells, strength in ((3, 90), (12, 40), (48, 20)):
        coarse = chance.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        clouds += (np.asarray(smooth, np.float32) / 255 - 0.5) * strength
    clouds += chance.normal(128, 4, clouds.shape)
    clouds[0, 0] = variant
    return Image.fromarray(clouds.clip(0, 255).astype(np.uint8))
