"""A bundle's part for GPUs: `triton.json`, the weights, and kernels for each architecture.

All three are files of the bundle's folder, listed in its manifest. `export.triton` writes them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from idetex_edge.bundle import Bundle
from idetex_edge.errors import BundleError, EngineError
from idetex_edge.facts import read_facts

CONTENTS: Final = "triton.json"
WEIGHTS: Final = "triton.weights.bin"
ALIGNMENT: Final = 256
"""Every tensor and buffer begins at a multiple of this many bytes."""


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """Where a tensor lies in the weights file, in bytes, and its row-major shape."""

    offset: int
    bytes: int
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class KernelFacts:
    """A compiled kernel: where its cubin lies in its architecture's file, and how to launch it.

    shared: bytes of dynamic shared memory. arguments: their types, in the launch's order.
    """

    function: str
    offset: int
    bytes: int
    warps: int
    shared: int
    arguments: tuple[str, ...]
    rows: int
    outputs: int


@dataclass(frozen=True, slots=True)
class KernelsFacts:
    """The kernels of one architecture, by name, and the file that holds their cubins."""

    file: str
    kernels: dict[str, KernelFacts]


@dataclass(frozen=True, slots=True)
class Contents:
    """The contents of `triton.json`.

    cache: "float" or "int8", what keys and values are held in. norm: the vision encoder's, "rms" or
    "layer". vision_activation: of a plain MLP, "" where it is gated. forms: number format of each
    matrix, by layer. kernels: by architecture, such as "sm_87".
    """

    cache: str
    epsilon: float
    vision_epsilon: float
    norm: str
    vision_activation: str
    forms: dict[str, str]
    tensors: dict[str, TensorFacts]
    kernels: dict[str, KernelsFacts]


def read_contents(bundle: Bundle) -> Contents:
    """Read a bundle's part for GPUs; raises EngineError when it has none, BundleError if broken."""
    needed = (CONTENTS, WEIGHTS)
    if any(name not in bundle.manifest.files for name in needed):
        raise EngineError(
            f"this bundle has no part for GPUs ({CONTENTS}); add it with python -m export.triton"
        )
    try:
        data = json.loads(bundle.file(CONTENTS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"cannot read {CONTENTS}: {error}; copy the bundle again") from None
    contents = read_facts(Contents, data, CONTENTS)
    end = bundle.manifest.files[WEIGHTS].bytes
    for name, tensor in contents.tensors.items():
        if tensor.offset % ALIGNMENT or tensor.offset + tensor.bytes > end:
            raise BundleError(f"{name} lies outside {WEIGHTS}; make the bundle's GPU part again")
    return contents
