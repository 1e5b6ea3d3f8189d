"""The builders of TensorRT engines: for which target which one, how new, and how to get it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple


class Flavour(NamedTuple):
    """How TensorRT's runtimes differ.

    captures: whether we record decoding steps as CUDA graphs; RTX does that by itself. keeps:
    whether kernels are compiled when they are first run, and can be kept in a file.
    """

    captures: bool
    keeps: bool


FLAVOURS: Final[Mapping[str, Flavour]] = {
    "tensorrt_rtx": Flavour(captures=False, keeps=True),
    "tensorrt": Flavour(captures=True, keeps=False),
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

HOW_TO_GET: Final = {
    "tensorrt_rtx": "pip install 'idetex-edge[tensorrt]' (any x86 Linux or Windows machine)",
    "tensorrt": "run `idetex-edge build` on the device, where JetPack or TensorRT has put it",
}
"""By module."""


def is_as_new_as(version: str, oldest: str) -> bool:
    """Compare the first two numbers of two versions."""
    return _numbers(version) >= _numbers(oldest)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])
