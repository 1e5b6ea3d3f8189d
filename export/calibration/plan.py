"""What calibration decides: a form and an input step for every matrix, saved to be used again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np

from export.graphs.rows import Array
from export.targets import Precision
from idetex_edge.errors import ExportError

CALIBRATION: Final = "calibration.json"

END_OF_HALF: Final = float(np.finfo(np.float16).max)
"""The end of FP16's range."""


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """One matrix.

    step: of its input's 8-bit numbers; range = 127 steps. method: how the range was found. error:
    ||q(x) q(W) - x W|| / ||x W|| on sampled inputs. kept: why it stays in the precision's fallback
    form, empty where it does not.
    """

    step: float
    method: str
    error: float
    kept: str = ""


@dataclass(frozen=True, slots=True)
class Peaks:
    """The largest |x| that a matrix takes and gives on the pictures that were seen."""

    takes: float
    gives: float

    @property
    def largest(self) -> float:
        """The larger one; NaN where either is."""
        return float(np.maximum(self.takes, self.gives))

    def __str__(self) -> str:
        return (
            f"takes up to {self.takes:.3g} and gives up to {self.gives:.3g}, where FP16 ends at "
            f"{END_OF_HALF:.0f}"
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """A checkpoint's calibration.

    layers: by the matrix's name. balance: by source (see `export.lowering.balancing`), the factors
    its outputs are divided by. wide: by the matrix's name, the numbers for which it is float32 at
    every precision where the target computes in FP16. keys, values: the KV cache's 8-bit steps,
    [layers][kv heads]. pictures: how many were seen.
    """

    layers: Mapping[str, LayerPlan] = field(default_factory=dict[str, LayerPlan])
    balance: Mapping[str, list[float]] = field(default_factory=dict[str, list[float]])
    wide: Mapping[str, Peaks] = field(default_factory=dict[str, Peaks])
    keys: list[list[float]] = field(default_factory=list[list[float]])
    values: list[list[float]] = field(default_factory=list[list[float]])
    pictures: int = 0

    def choose(self, form: str, precision: Precision, name: str) -> tuple[str, float]:
        """Give the form and input step of a matrix that is of `form` by default.

        Raises ExportError where the form needs a step and the plan has none.
        """
        # A share of a packed matrix is as wide as the whole.
        if name in self.wide or name.rpartition(".")[0] in self.wide:
            return "float32", 0.0
        layer = self.layers.get(name)
        if layer is None:
            if "static" in form:
                raise ExportError(
                    f"{name} has no calibrated range; pass --calibration FOLDER of photographs"
                )
            return form, 0.0
        return (precision.fallback if layer.kept else form), layer.step

    @property
    def kept(self) -> dict[str, str]:
        """What stays in float, and why."""
        kept = {name: layer.kept for name, layer in self.layers.items() if layer.kept}
        return kept | {name: str(peaks) for name, peaks in self.wide.items()}

    @property
    def loose(self) -> list[str]:
        """The calibrated matrices that do not stay in float."""
        return [name for name, layer in self.layers.items() if not layer.kept]

    def factors(self) -> dict[str, Array]:
        """Give the balance as arrays."""
        return {name: np.array(values, np.float32) for name, values in self.balance.items()}

    def keeping(self, names: Mapping[str, str]) -> Plan:
        """Leave the named matrices in the fallback form, for the reasons given."""
        layers = {
            name: replace(layer, kept=names.get(name, layer.kept))
            for name, layer in self.layers.items()
        }
        return replace(self, layers=layers)

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Plan:
        """Read what `save` wrote; raises ExportError when it is not that."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            layers = {name: LayerPlan(**layer) for name, layer in data.pop("layers").items()}
            wide = {name: Peaks(**peaks) for name, peaks in data.pop("wide").items()}
            return cls(layers=layers, wide=wide, **data)
        except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
            raise ExportError(f"cannot read calibration {path}: {error}; make it again") from None
