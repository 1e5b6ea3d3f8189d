"""Which engines work here, and which engines of TensorRT can be built here."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from idetex_edge.bundle import Bundle
from idetex_edge.engines import ENGINES, Loader
from idetex_edge.errors import EngineError
from idetex_edge.tensorrt.builders import BUILDERS, builder_of


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether something works, and why or why not, with what to do."""

    name: str
    works: bool
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON form."""
        return asdict(self)


def engine_verdicts(
    bundle: Bundle,
    engines: Mapping[str, Loader] = ENGINES,
) -> list[Verdict]:
    """Try every engine on a bundle."""
    verdicts: list[Verdict] = []
    for name, load in engines.items():
        try:
            load(bundle, None)
        except EngineError as error:
            verdicts.append(Verdict(name, False, str(error)))
        else:
            verdicts.append(Verdict(name, True, f"runs {bundle.manifest.name}"))
    return verdicts


def build_verdicts(
    import_module: Callable[[str], Any] = importlib.import_module,
) -> list[Verdict]:
    """For each target that needs engines built, whether this machine has the builder."""
    verdicts: list[Verdict] = []
    for target in BUILDERS:
        try:
            found = builder_of(target, import_module)
        except EngineError as error:
            verdicts.append(Verdict(target, False, str(error)))
        else:
            verdicts.append(Verdict(target, True, f"has {found.__version__}"))
    return verdicts
