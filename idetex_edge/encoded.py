"""A picture that the model has seen: its features, and the prompts already computed behind it."""

from __future__ import annotations

from dataclasses import dataclass, field

from PIL import Image

from idetex_edge.engines.protocol import Engine, Floats
from idetex_edge.engines.protocol import Sequence as Cached


@dataclass(slots=True)
class EncodedImage:
    """One picture, encoded once; every task takes it in place of the picture.

    image: the picture as loaded, RGB. features: float32 [rows * columns, hidden]. rows, columns:
    its size in merged vision tokens. path: where it came from, if from a file. encode_ms: how long
    encoding took. engine: what encoded it; only the Assessor that runs on it can go on from here.
    stems: prompts up to and with the picture, prefilled, by the words in front.
    """

    image: Image.Image = field(repr=False)
    features: Floats = field(repr=False)
    rows: int
    columns: int
    path: str | None
    encode_ms: float
    engine: Engine = field(repr=False)
    stems: dict[str, Cached] = field(default_factory=dict[str, Cached], repr=False)
