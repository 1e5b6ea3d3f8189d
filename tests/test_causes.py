"""What causes are taken for is counted as the table says."""

from types import SimpleNamespace
from typing import cast

import numpy as np
import skimage.data
from PIL import Image

from benchmarks.causes import NOTHING, mistaken_for, names_by_cause, right_share
from benchmarks.spoiled_whole import WHOLE_CAUSES
from idetex_edge import Assessor
from idetex_edge.vocabulary import SEVERITIES


class _SeesTheDark:
    """Finds nothing but darkness, which it is surer of than of the noise it always finds then."""

    def ground(self, picture: Image.Image) -> list[SimpleNamespace]:
        if float(np.asarray(picture).mean()) > 80:
            return []
        noise = SimpleNamespace(type="Noise", confidence=0.2)
        return [noise, SimpleNamespace(type="Underexposure", confidence=0.6)]


def test_a_picture_is_named_by_its_surest_distortion() -> None:
    photograph = Image.fromarray(skimage.data.chelsea()).resize((128, 96))
    names = names_by_cause(cast(Assessor, _SeesTheDark()), photograph, seed=3)
    assert set(names) == {cause.name for cause in WHOLE_CAUSES}
    assert all(tuple(by_severity) == SEVERITIES for by_severity in names.values())
    assert names["fewer stops"]["severe"] == "Underexposure"
    assert set(names["more stops"].values()) == {NOTHING}


def test_what_is_wrong_is_counted_over_all_severities() -> None:
    names = {
        "minor": ["Noise", NOTHING, "Low clarity"],
        "severe": ["Noise", "Noise", "Low clarity"],
    }
    assert [right_share("Noise", said) for said in names.values()] == [1 / 3, 2 / 3]
    assert mistaken_for("Noise", names) == "Low clarity"
    assert mistaken_for("Noise", {"minor": ["Noise"]}) is None
