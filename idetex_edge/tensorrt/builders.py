"""The builders of TensorRT engines: which reads whose graphs, how new it must be, how to get it."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from idetex_edge.errors import EngineError

AUTO: Final = "auto"


class Flavour(NamedTuple):
    """How TensorRT's runtimes differ.

    captures: whether we record decoding steps as CUDA graphs; RTX does that by itself. keeps:
    whether kernels are compiled when they are first run, and can be kept in a file. portable:
    whether engines are built without a GPU, and run on any that it supports.
    """

    captures: bool
    keeps: bool
    portable: bool


FLAVOURS: Final[Mapping[str, Flavour]] = {
    "tensorrt_rtx": Flavour(captures=False, keeps=True, portable=True),
    "tensorrt": Flavour(captures=True, keeps=False, portable=False),
}
"""By Python module."""


class Builder(NamedTuple):
    """The Python module that builds a target's engines, and its first version that can."""

    module: str
    oldest: str


BUILDERS: Final[Mapping[str, Builder]] = {
    "tensorrt-rtx": Builder("tensorrt_rtx", "1.7"),
    "tensorrt-11": Builder("tensorrt", "11.0"),
    "tensorrt-10.16": Builder("tensorrt", "10.16"),
    "tensorrt-10.3": Builder("tensorrt", "10.3"),
}
"""By target of `python -m export convert`."""

BUILT_FOR: Final[Mapping[str, tuple[str, ...]]] = {
    "tensorrt-rtx": ("tensorrt-rtx", "tensorrt-11", "tensorrt-10.16"),
    "tensorrt-11": ("tensorrt-11", "tensorrt-10.16", "tensorrt-rtx"),
    "tensorrt-10.16": ("tensorrt-10.16", "tensorrt-11", "tensorrt-rtx"),
    "tensorrt-10.3": ("tensorrt-10.3", "tensorrt-10.16", "tensorrt-11", "tensorrt-rtx"),
}
"""For which targets a bundle's graphs can be built, by its own target, which comes first.

All but 10.3's are the same graphs, and 10.3's are spelled out in what every builder knows.
"""

HOW_TO_GET: Final = {
    "tensorrt_rtx": "pip install 'idetex-edge[tensorrt]' (any x86 Linux or Windows machine)",
    "tensorrt": "run `idetex-edge build` on the device, where JetPack or TensorRT has put it",
}
"""By module."""

Import = Callable[[str], Any]


def load_builder(graphs: str, target: str = AUTO) -> Any:  # noqa: ANN401 (an untyped module)
    """Import the builder of a target's graphs: for a named target, or the best that is here.

    Raises EngineError when the target's builder cannot read them, is missing, or is too old.
    """
    possible = BUILT_FOR[graphs]
    if target != AUTO and target not in possible:
        raise EngineError(
            f"graphs for {graphs} cannot be built for {target!r}; give one of "
            f"{', '.join((AUTO, *possible))}, or export the bundle for it"
        )
    return builders_here(graphs)[0] if target == AUTO else builder_of(target)


def builders_here(graphs: str, import_module: Import = importlib.import_module) -> list[Any]:
    """Import every builder of a target's graphs that is here, the best first.

    Raises EngineError, which says how to get the target's own, when there is none.
    """
    found: list[Any] = []
    reasons: list[str] = []
    for target in BUILT_FOR[graphs]:
        try:
            module = builder_of(target, import_module)
        except EngineError as error:
            reasons.append(str(error))
        else:
            if module not in found:
                found.append(module)
    if not found:
        raise EngineError(reasons[0])
    return found


def builder_of(target: str, import_module: Import = importlib.import_module) -> Any:  # noqa: ANN401
    """Import a target's own builder; raises EngineError when it is missing or too old."""
    builder = BUILDERS[target]
    package = builder.module.replace("_", "-")
    try:
        module = import_module(builder.module)
    except (ImportError, OSError) as error:
        raise EngineError(
            f"this machine has no {package} {builder.oldest} or newer ({error}): "
            f"{HOW_TO_GET[builder.module]}"
        ) from None
    if not is_as_new_as(module.__version__, builder.oldest):
        raise EngineError(
            f"this machine has {package} {module.__version__}, and the bundle needs "
            f"{builder.oldest}; export it for the older version"
        )
    return module


def is_as_new_as(version: str, oldest: str) -> bool:
    """Compare the first two numbers of two versions."""
    return _numbers(version) >= _numbers(oldest)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])
