"""Engines: what runs a bundle on this machine's hardware."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from idetex_edge.bundle import Bundle
from idetex_edge.engines.protocol import Engine, Sequence
from idetex_edge.errors import EngineError

__all__ = ["AUTO", "ENGINES", "Engine", "Loader", "Sequence", "load_engine"]

AUTO: Final = "auto"

Loader: TypeAlias = Callable[[Bundle, int | None], Engine]
"""Makes an engine for a bundle, on so many CPU threads."""


def _onnx(name: str) -> Loader:
    def load(bundle: Bundle, threads: int | None) -> Engine:
        # Imported here: ONNX Runtime takes longer to import than all of idetex_edge.
        from idetex_edge.engines.onnx import OnnxEngine

        return OnnxEngine(bundle, threads, name)

    return load


def _triton(bundle: Bundle, threads: int | None) -> Engine:
    from idetex_edge.engines.triton import TritonEngine

    return TritonEngine(bundle)


def _tensorrt(bundle: Bundle, threads: int | None) -> Engine:
    from idetex_edge.engines.tensorrt import TensorrtEngine

    return TensorrtEngine(bundle)


ENGINES: Final[Mapping[str, Loader]] = {
    "onnx:cpu": _onnx("onnx:cpu"),
    "triton": _triton,
    "tensorrt": _tensorrt,
    "onnx:rtx": _onnx("onnx:rtx"),
    "onnx:cuda": _onnx("onnx:cuda"),
}
"""Every engine by name, the one preferred by "auto" first."""

_ALIASES: Final = {"onnx": "onnx:cpu"}


def load_engine(name: str, bundle: Bundle, threads: int | None = None) -> Engine:
    """Make the named engine for a bundle, or with "auto" the best that works on this machine.

    threads: how many CPU threads it may use; None leaves it to the runtime (all physical cores).
    Raises EngineError when the name is unknown, the machine or bundle does not suit the engine,
    or, for "auto", when no engine works; "auto" warns of each one that it passes over.
    """
    if threads is not None and threads < 1:
        raise EngineError(f"cannot run on {threads} threads; give 1 or more, or None")
    if name != AUTO:
        chosen = _ALIASES.get(name, name)
        if chosen not in ENGINES:
            known = ", ".join((AUTO, *_ALIASES, *ENGINES))
            raise EngineError(f"unknown engine {name!r}; known are {known}")
        return ENGINES[chosen](bundle, threads)
    reasons: list[str] = []
    for candidate, load in ENGINES.items():
        try:
            engine = load(bundle, threads)
        except EngineError as error:
            reasons.append(f"{candidate}: {error}")
        else:
            for reason in reasons:
                warnings.warn(f"passed over engine {reason}", RuntimeWarning, stacklevel=2)
            return engine
    raise EngineError(f"no engine works on this machine ({'; '.join(reasons)})")
