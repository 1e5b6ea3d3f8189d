"""What the checkpoint's matrices see: inputs sampled while it reads real pictures and answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from export.graphs.rows import Array
from export.graphs.write import Advance
from export.parity.answers import Answer, Answering
from export.parity.pictures import Photograph
from export.parity.reference import Reference
from idetex_edge.bundle import Bundle
from idetex_edge.engines.protocol import Floats
from idetex_edge.errors import ExportError
from idetex_edge.preprocess import PatchedImage

ROWS: Final = 256
"""Rows of each matrix's input that are kept, chosen evenly at random from all it sees."""

COMPARED: Final = 4
"""Pictures whose answers are kept with their logits for the search in
`export.calibration.fallback`."""


@dataclass(slots=True)
class Inputs:
    """One matrix's inputs: a sample of rows [.., inputs], and each column's largest |x| of all."""

    rows: Array = field(default_factory=lambda: np.empty((0, 0), np.float32))
    peaks: Array = field(default_factory=lambda: np.zeros(1, np.float32))
    _keys: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    def add(self, rows: Array, chance: np.random.Generator) -> None:
        """See more rows: each one seen so far is as likely to be in the sample as any other."""
        self.peaks = np.maximum(self.peaks, np.abs(rows).max(axis=0))
        keys = chance.random(len(rows))
        if len(self._keys) == ROWS:
            below = keys < self._keys.max()
            rows, keys = rows[below], keys[below]
        joined = np.concatenate([self._keys, keys])
        together = np.concatenate([self.rows, rows]) if len(self.rows) else rows
        best = np.argsort(joined)[:ROWS]
        self.rows, self._keys = together[best].copy(), joined[best]

    @property
    def largest(self) -> float:
        """The largest |x| of all rows."""
        return float(self.peaks.max())

    def divided(self, columns: Array) -> Inputs:
        """Give the same inputs with each column divided by a number above zero."""
        return Inputs(self.rows / columns, self.peaks / columns)


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """A picture with its answers, and what the checkpoint's logits on them are."""

    patched: PatchedImage
    answers: Sequence[Answer]
    logits: Sequence[Floats]


@dataclass(slots=True)
class Observation:
    """All that was seen.

    inputs: of each matrix. outputs: the largest |x| of each one's. keys, values: the largest |x| of
    the KV cache, [layers, kv heads].
    """

    inputs: dict[str, Inputs] = field(default_factory=dict[str, Inputs])
    outputs: dict[str, float] = field(default_factory=dict[str, float])
    keys: Floats | None = None
    values: Floats | None = None
    reads: list[Read] = field(default_factory=list[Read])

    def see(
        self, layer: str, x: torch.Tensor, y: torch.Tensor, chance: np.random.Generator
    ) -> None:
        """Take in a matrix's input, [.., inputs] or pixels [patches, C, T, P, P], and output."""
        rows = x.reshape(len(x), -1) if x.ndim == 5 else x.reshape(-1, x.shape[-1])
        self.inputs.setdefault(layer, Inputs()).add(rows.numpy(), chance)
        self.outputs[layer] = max(self.outputs.get(layer, 0.0), float(y.abs().max()))

    def of(self, name: str) -> Inputs:
        """Find what a matrix saw; a share of a packed one saw what the whole did.

        Raises ExportError when it saw nothing.
        """
        for observed in (name, name.rpartition(".")[0]):
            if observed in self.inputs:
                return self.inputs[observed]
        raise ExportError(
            f"{name} was never reached in calibration; the checkpoint's config is odd"
        )


def observe(
    reference: Reference,
    bundle: Bundle,
    answering: Answering,
    pictures: Sequence[Photograph],
    steps: int,
    advance: Advance,
) -> Observation:
    """Let a quick bundle of the checkpoint answer, and the checkpoint itself read the answers.

    So grounding, description and choices are seen as they will be, to the end of the answers.
    """
    found, chance = Observation(), np.random.default_rng(0)

    def watch(layer: str, x: torch.Tensor, y: torch.Tensor) -> None:
        found.see(layer, x, y, chance)

    with reference.watching(watch):
        for done, picture in enumerate(pictures):
            advance("calibrating", done, len(pictures))
            patched = bundle.manifest.preprocessor.patchify(picture.load())
            features = answering.engine.encode(patched)
            answers = [answer for answer, _ in answering.answer(patched, features, steps)]
            reading = reference.read(answers, patched)
            found.keys = _larger(found.keys, reading.keys)
            found.values = _larger(found.values, reading.values)
            if done < COMPARED:
                found.reads.append(Read(patched, answers, reading.logits))
    advance("calibrating", len(pictures), len(pictures))
    return found


def _larger(so_far: Floats | None, now: Floats) -> Floats:
    return now if so_far is None else np.maximum(so_far, now)
