"""The figures of a proof, picture by picture, and whether they keep a precision's limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from export.targets import Limits


@dataclass(frozen=True, slots=True)
class PictureParity:
    """One picture.

    logits_error: max|a - b| / max|b| over all steps. steps, agreed: tokens of the written answers,
    and those that both would say. choices, chosen_alike: multiple-choice questions. boxes: found in
    the grounding answer; box_overlap: their mean overlap (0..1) with those that the checkpoint
    would have written after the same tokens, None without any. vision_cosine: the smallest of any
    image feature.
    """

    picture: str
    grid: tuple[int, int]
    logits_error: float
    steps: int
    agreed: int
    choices: int
    chosen_alike: int
    boxes: int
    box_overlap: float | None
    vision_cosine: float


@dataclass(frozen=True, slots=True)
class Parity:
    """All pictures' parity, and what they come to together."""

    reference: str
    pictures: tuple[PictureParity, ...]

    @property
    def logits_error(self) -> float:
        """The largest relative error of any picture."""
        return max(p.logits_error for p in self.pictures)

    @property
    def vision_cosine(self) -> float:
        """The smallest cosine of any image feature of any picture."""
        return min(p.vision_cosine for p in self.pictures)

    @property
    def top1_agreement(self) -> float:
        """The share of steps at which both would say the same token."""
        return sum(p.agreed for p in self.pictures) / sum(p.steps for p in self.pictures)

    @property
    def choice_agreement(self) -> float:
        """The share of multiple-choice questions that both would answer alike."""
        return sum(p.chosen_alike for p in self.pictures) / sum(p.choices for p in self.pictures)

    @property
    def box_overlap(self) -> float | None:
        """Mean overlap of all boxes with the checkpoint's; None where none was written."""
        total = sum(p.boxes for p in self.pictures)
        parts = [(p.box_overlap or 0.0) * p.boxes for p in self.pictures]
        return sum(parts) / total if total else None

    def to_dict(self) -> dict[str, Any]:
        """Give the contents of `parity.json`."""
        whole = {
            "logits_error": self.logits_error,
            "top1_agreement": self.top1_agreement,
            "choice_agreement": self.choice_agreement,
            "box_overlap": self.box_overlap,
            "vision_cosine": self.vision_cosine,
            "steps": sum(p.steps for p in self.pictures),
            "choices": sum(p.choices for p in self.pictures),
        }
        return whole | asdict(self)

    def shortfalls(self, limits: Limits) -> Sequence[str]:
        """Say which limits are not kept, with the numbers; a figure that is NaN keeps none."""
        kept = {
            f"logits differ from the checkpoint's by {self.logits_error:.2e} relative, over the "
            f"limit of {limits.logits_error:.0e}": self.logits_error <= limits.logits_error,
            f"vision features have cosine {self.vision_cosine:.7f} with the checkpoint's, under "
            f"the limit of {limits.vision_cosine}": self.vision_cosine >= limits.vision_cosine,
            f"only {self.top1_agreement:.1%} of tokens agree with the checkpoint's, under the "
            f"limit of {limits.top1_agreement:.0%}": self.top1_agreement >= limits.top1_agreement,
            f"only {self.choice_agreement:.1%} of choices agree with the checkpoint's, under the "
            f"limit of {limits.choice_agreement:.0%}": (
                self.choice_agreement >= limits.choice_agreement
            ),
        }
        return [reason for reason, well in kept.items() if not well]
