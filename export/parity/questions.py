"""What is asked of every picture in a proof and in calibration: all three tasks, as data."""

from __future__ import annotations

from typing import Final

from idetex_edge.requests import Request, choice_request
from idetex_edge.vocabulary import DISTORTIONS, LEVELS

WRITTEN: Final = ("grounding", "description")
"""The tasks whose answers are written token by token."""

_PLACES: Final = ("Upper left", "Upper right", "Lower left", "Lower right")

CHOICES: Final[tuple[Request, ...]] = tuple(
    choice_request(question, options)
    for question, options in (
        ("What is the most significant distortion in the image?", DISTORTIONS[:4]),
        ("Which distortion is present in the image?", DISTORTIONS[4:8]),
        ("Which of these does not occur in the image?", DISTORTIONS[6:]),
        ("Where is the distortion most visible?", _PLACES),
        ("How severe is the most significant distortion?", ("Minor", "Moderate", "Severe")),
        ("How severe is the noise in the image?", ("Minor", "Moderate", "Severe", "There is none")),
        ("Does the image suffer from motion blur?", ("Yes", "No")),
        ("How would you rate the quality of the image?", [level.title() for level in LEVELS]),
    )
)
"""Multiple-choice questions, of every concern that ViDA-UGC knows."""
