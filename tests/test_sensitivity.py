"""How the score falls under spoiling is summed up as the table says."""

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import skimage.data
from PIL import Image

from benchmarks.sensitivity import falls, summarise
from export.distortions.causes import CAUSES
from idetex_edge import Assessor
from idetex_edge.vocabulary import DISTORTIONS


class _Brightness:
    """Scores a picture by its mean: darkening alone lowers it."""

    def score(self, picture: Image.Image) -> SimpleNamespace:
        return SimpleNamespace(score=float(np.asarray(picture).mean()))


def test_darker_pictures_score_lower_step_by_step() -> None:
    photograph = Image.fromarray(skimage.data.chelsea()).resize((128, 96))
    found = falls(cast(Assessor, _Brightness()), photograph, seed=3)
    assert set(found) == set(DISTORTIONS) - {"Meaningless solid color"}
    assert len(found["Underexposure"]) == sum(c.distortion == "Underexposure" for c in CAUSES)
    dark, bright = summarise(found["Underexposure"]), summarise(found["Overexposure"])
    assert dark["in_order"] == dark["minor_share"] == 1.0
    assert 0 < dark["minor_median"] < dark["moderate_median"] < dark["severe_median"]
    assert bright["severe_share"] == bright["in_order"] == 0.0


def test_summary_counts_shares_and_medians() -> None:
    summary = summarise([[1.0, 2.0, 3.0], [2.0, 1.0, 5.0], [-1.0, 4.0, 9.0]])
    assert summary["in_order"] == pytest.approx(1 / 3, abs=1e-3)
    assert summary["minor_share"] == pytest.approx(2 / 3, abs=1e-3)
    assert (summary["moderate_median"], summary["severe_median"]) == (2.0, 5.0)
