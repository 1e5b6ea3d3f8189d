"""Spoil one clean picture with up to four distortions and record exactly what was done."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from export.distortions import masks
from export.distortions.causes import CHAIN, Cause, causes_of
from export.distortions.chance import Chance
from idetex_edge.boxes import to_thousandths
from idetex_edge.vocabulary import DISTORTIONS, SEVERITIES

_COUNT_ODDS: Final = (0.10, 0.40, 0.30, 0.14, 0.06)
_GLOBAL_ODDS: Final = 0.35
_SHAPES: Final = (masks.rectangle, masks.rectangle, masks.ellipse, masks.blob, masks.band)
_SOLID: Final = "Meaningless solid color"
_SOLID_SHAPES: Final = (masks.rectangle, masks.border, masks.border, masks.band)
_SOLID_AREAS: Final = (0.10, 0.25)
_LEAST_VISIBLE: Final = 0.35
_OPPOSITES: Final[tuple[frozenset[str], ...]] = (
    frozenset(("Underexposure", "Overexposure")),
    frozenset(("Low clarity", "Edge aliasing effect")),
)


@dataclass(frozen=True, slots=True)
class Truth:
    """One distortion as it was applied.

    `box` is (x1, y1, x2, y2) in 0..1000; `area` the share of the picture it covers, 0..1.
    """

    type: str
    severity: str
    box: tuple[int, int, int, int]
    area: float
    cause: str


@dataclass(frozen=True, slots=True)
class Spoiled:
    """A spoiled picture [3, H, W] in 0..1 (8-bit steps), its truth and a mask [H, W] for each."""

    image: Tensor
    truths: tuple[Truth, ...]
    masks: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class _Plan:
    cause: Cause
    severity: int
    mask: Tensor
    whole: bool


def _solid_severity(area: float) -> int:
    """Nothing is left of what solid colour covers: how bad it is goes by its share of the view."""
    return sum(area > limit for limit in _SOLID_AREAS)


def _plan(height: int, width: int, held_out: bool, chance: Chance) -> list[_Plan]:
    count = chance.choices(range(len(_COUNT_ODDS)), _COUNT_ODDS)[0]
    drawn: list[str] = []
    for distortion in chance.sample(DISTORTIONS, len(DISTORTIONS)):
        if not any(frozenset((distortion, other)) in _OPPOSITES for other in drawn):
            drawn.append(distortion)
    plans: list[_Plan] = []
    for distortion in sorted(drawn[:count], key=CHAIN.index):
        cause = chance.choice(causes_of(distortion, held_out))
        severity = chance.randrange(len(SEVERITIES))
        solid = distortion == _SOLID
        whole = not solid and chance.random() < _GLOBAL_ODDS
        places = 1 if whole or chance.random() < 0.8 else 2
        for _ in range(places):
            shape = chance.choice(_SOLID_SHAPES if solid else _SHAPES)
            mask = torch.ones(height, width) if whole else shape(height, width, chance)
            mask = mask if whole or solid else masks.soften(mask, chance)
            if solid:
                severity = _solid_severity(float(mask.mean()))
            plans.append(_Plan(cause, severity, mask, whole))
    return plans


def _apply(image: Tensor, plan: _Plan, chance: Chance) -> Tensor:
    strength = chance.uniform(*plan.cause.ranges[plan.severity])
    if plan.whole:
        return plan.cause.apply(image, strength, chance)
    margin = 24
    height, width = image.shape[-2:]
    x1, y1, x2, y2 = masks.bounds(plan.mask)
    x1, y1 = max(0, x1 - margin), max(0, y1 - margin)
    x2, y2 = min(width, x2 + margin), min(height, y2 + margin)
    window = image[:, y1:y2, x1:x2]
    weight = plan.mask[y1:y2, x1:x2].to(image)
    result = image.clone()
    result[:, y1:y2, x1:x2] = window + weight * (
        plan.cause.apply(window, strength, chance).clamp(0, 1) - window
    )
    return result


def _visible(plans: Sequence[_Plan]) -> list[tuple[_Plan, Tensor]]:
    """Take from each mask what solid colour hides later; drop what is hardly left."""
    kept: list[tuple[_Plan, Tensor]] = []
    for position, plan in enumerate(plans):
        mask = plan.mask
        for later in plans[position + 1 :]:
            if later.cause.distortion == _SOLID:
                mask = mask * (1 - later.mask)
        if mask.sum() >= _LEAST_VISIBLE * plan.mask.sum() and mask.max() > 0.5:
            kept.append((plan, mask))
    return kept


def spoil(image: Tensor, seed: int, held_out: bool = False) -> Spoiled:
    """Spoil a clean picture [3, H, W] in 0..1; the same seed gives the same result.

    `held_out` draws from the causes kept back for validation instead of those trained on.
    """
    chance = Chance(seed)
    height, width = int(image.shape[-2]), int(image.shape[-1])
    plans = _plan(height, width, held_out, chance)
    spoiled = image
    for plan in plans:
        spoiled = _apply(spoiled, plan, chance).clamp(0, 1)
    truths: list[Truth] = []
    kept_masks: list[Tensor] = []
    for plan, mask in _visible(plans):
        box = to_thousandths(masks.bounds(mask), width, height)
        severity = SEVERITIES[plan.severity]
        area = float(mask.mean())
        truths.append(Truth(plan.cause.distortion, severity, box, area, plan.cause.name))
        kept_masks.append(mask)
    image8 = (spoiled * 255).round() / 255
    return Spoiled(image8, tuple(truths), tuple(kept_masks))
