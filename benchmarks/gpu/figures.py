"""Figures of whole engines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from idetex_edge.measuring.rows import Row

ENGINE: Final = "triton"
PEER: Final = "transformers-cuda"


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured of whole engines.

    rows: by engine, scenario and metric, with the shape for a model. of_floor: by shape, the share
    that decoding reaches of the rate at which a copy could read the language model's weights; its
    KV cache, a few megabytes, is left out. agreement: by shape, of the likeliest next token, FP16
    against the checkpoint. missing: why the peer was not measured.
    """

    rows: tuple[Row, ...] = ()
    of_floor: Mapping[str, float] = field(default_factory=dict[str, float])
    agreement: Mapping[str, float] = field(default_factory=dict[str, float])
    missing: str | None = None

    def times(self, shape: str, scenario: str, metric: str) -> float:
        """How many times better than the peer; KeyError where that was not measured."""
        for row in self.rows:
            if (row.model, row.scenario, row.metric) == (shape, scenario, metric) and (
                row.engine == ENGINE and row.ratio_to_fastest_peer is not None
            ):
                return row.ratio_to_fastest_peer
        raise KeyError(shape, scenario, metric)
