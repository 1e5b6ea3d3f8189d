"""Learn what a bundle's answers mostly say, so that its runtime can draft them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from export.parity.pictures import Photograph
from idetex_edge.asking import Asker
from idetex_edge.bundle import Bundle
from idetex_edge.drafting import Drafter
from idetex_edge.engines.onnx import OnnxEngine
from idetex_edge.image import MAX_PIXELS
from idetex_edge.requests import DESCRIPTION, GROUNDING

PICTURES: Final = 200
"""How many pictures are answered about; what is said of more hardly differs."""


def learn_drafts(
    bundle: Bundle, pictures: Sequence[Photograph], advance: Callable[[str, int, int], None]
) -> Drafter:
    """Let the bundle ground and describe pictures on the CPU, and learn from its answers."""
    asker = Asker(bundle, OnnxEngine(bundle), MAX_PIXELS)
    answers: list[list[int]] = []
    for number, picture in enumerate(pictures):
        advance("pictures answered", number, len(pictures))
        replies = asker.answers(asker.see(picture.load()), [GROUNDING, DESCRIPTION])
        answers += [reply.tokens for reply in replies]
    advance("pictures answered", len(pictures), len(pictures))
    return Drafter.of_answers(answers)
