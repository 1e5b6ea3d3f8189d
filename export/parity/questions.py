"""What is asked of every picture in a proof and in calibration: all three tasks, as data."""

from __future__ import annotations

from typing import Final

from idetex_edge.requests import Request, choice_request
from idetex_edge.vocabulary import DISTORTIONS, LEVELS

WRITTEN: Final = ("grounding", "description")
"""The tasks whose answers are written token by token."""

_PLACES: Final = ("Upper left", "Upper right", "Lower left", "Lower right")
_HEIGHTS: Final = ("In the upper part", "In the middle", "In the lower part")
_DEGREES: Final = ("Minor", "Moderate", "Severe", "There is none")
_RATINGS: Final = tuple(level.title() for level in LEVELS)
_TYPES: Final = (DISTORTIONS[:4], DISTORTIONS[3:7], DISTORTIONS[6:])
_NAMED: Final = ("noise", "motion blur", "low clarity", "underexposure")

CHOICES: Final[tuple[Request, ...]] = tuple(
    choice_request(question, options)
    for question, options in (
        *(("What is the most significant distortion in the image?", types) for types in _TYPES),
        *(("Which distortion is present in the image?", types) for types in _TYPES),
        *(("Which of these does not occur in the image?", types) for types in _TYPES),
        ("Where is the distortion most visible?", _PLACES),
        ("Where is the most significant distortion?", _HEIGHTS),
        ("Which part of the image is the clearest?", _PLACES),
        ("How severe is the most significant distortion?", _DEGREES[:3]),
        *((f"How severe is the {name} in the image?", _DEGREES) for name in _NAMED),
        *((f"Does the image suffer from {name}?", ("Yes", "No")) for name in _NAMED),
        ("How would you rate the quality of the image?", _RATINGS),
        ("How would you rate the clarity of the image?", _RATINGS),
        ("How would you rate the exposure of the image?", _RATINGS),
    )
)
"""Multiple-choice questions, of every concern that ViDA-UGC knows. Enough of them that one picture
more or less does not decide a proof: with three pictures, 3 of 72 may be answered otherwise."""
