"""Which engines work here, and which engines of TensorRT can be built here."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from idetex_edge.bundle import Bundle
from idetex_edge.engines import ENGINES, Loader
from idetex_edge.errors import EngineError
from idetex_edge.tensorrt.builders import BUILDERS, HOW_TO_GET, is_as_new_as


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
    for target, builder in BUILDERS.items():
        wanted = f"{builder.module.replace('_', '-')} {builder.oldest}"
        try:
            found = str(import_module(builder.module).__version__)
        except (ImportError, OSError):
            reason = f"needs {wanted} or newer: {HOW_TO_GET[builder.module]}"
            verdicts.append(Verdict(target, False, reason))
            continue
        works = is_as_new_as(found, builder.oldest)
        reason = f"has {found}" if works else f"has {found}, needs {wanted} or newer"
        verdicts.append(Verdict(target, works, reason))
    return verdicts
