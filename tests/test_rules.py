"""Rules on perfect evidence answer what the truth answers, so what they miss is the tower's."""

from random import Random

import numpy as np
import skimage.data
import torch

from benchmarks.rules import Seen, boxes_in, speaks_for
from export.distortions.compose import Spoiled, spoil
from export.pool.shards import cell_maps
from export.supervision.choices import CHOICES
from export.training.known import grade_targets
from idetex_edge.boxes import overlap
from idetex_edge.evaluation.benchmark import Question
from idetex_edge.vocabulary import DISTORTIONS, SEVERITIES


def _perfectly_seen(spoiled: Spoiled, height: int, width: int) -> Seen:
    share, severity = cell_maps(spoiled, height, width)
    targets = grade_targets(
        torch.from_numpy(share)[None].float() / 255, torch.from_numpy(severity)[None]
    )
    return targets.numpy().reshape(*share.shape[1:], len(DISTORTIONS), len(SEVERITIES))


def test_rules_read_perfect_evidence_right() -> None:
    clean = torch.from_numpy(skimage.data.astronaut()[:448, :504].copy()).permute(2, 0, 1) / 255
    random = Random(4)
    right: list[bool] = []
    for seed in range(25):
        spoiled = spoil(clean, seed)
        seen = _perfectly_seen(spoiled, 448, 504)
        for make in CHOICES:
            example = make(spoiled.truths, random)
            if example is None:
                continue
            candidates = tuple(
                line.split(". ", 1)[1] for line in example.fields["options"].splitlines()
            )
            concern = "severity" if "Severe" in candidates else make.__name__.split("_")[0]
            question = Question(
                0, "a", "a", concern, example.fields["question"], candidates, "unused"
            )
            best = int(np.argmax(speaks_for(seen, question)))
            right.append(chr(ord("A") + best) == example.answer)
    assert len(right) > 80
    assert np.mean(right) > 0.85


def test_rules_find_boxes_in_perfect_evidence() -> None:
    clean = torch.from_numpy(skimage.data.astronaut()[:448, :504].copy()).permute(2, 0, 1) / 255
    found = wanted = 0
    for seed in range(25):
        spoiled = spoil(clean, seed)
        boxes = dict(boxes_in(_perfectly_seen(spoiled, 448, 504)))
        alone = [t for t in spoiled.truths if [u.type for u in spoiled.truths].count(t.type) == 1]
        wanted += len(alone)
        found += sum(t.type in boxes and overlap(boxes[t.type], t.box) > 0.5 for t in alone)
        assert set(boxes) <= {t.type for t in spoiled.truths}
    assert wanted > 20
    assert found / wanted > 0.85
