"""What building engines takes, told beforehand, and how it is made to fit a small board."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from idetex_edge.bundle import Bundle
from idetex_edge.errors import EngineError
from idetex_edge.tensorrt.recipe import EngineRecipe

_BASE: Final = 450_000_000
"""Bytes that a builder takes for any graph."""

_COPIES: Final = 1.3
"""How often a graph's weights lie in memory at the peak for each optimisation profile, one of all
of it as pages of their own files.

TensorRT-RTX 1.7 was measured with two and three profiles, as the system counts it (GB, the estimate
behind it): nano's vision graph in FP16 0.43 (0.48), 3B's in INT8 2.89 (3.07), 3B's decoder in INT8
9.30 (9.63).
"""

_RUNNING: Final = 1.3
"""What engines take of a GPU's memory, by their weights."""

_LEAST_WORKSPACE: Final = 2**28
"""Bytes of working memory below which kernels are lost."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How engines are built here.

    workspace: bytes that a builder may try kernels with; None for all that there is. streams:
    whether weights may stay in the host's memory and be sent to the GPU as they are needed.
    """

    workspace: int | None = None
    streams: bool = False


def building_takes(bundle: Bundle, recipe: EngineRecipe) -> int:
    """Bytes of memory at the peak of building one engine in a process of its own."""
    return _BASE + int(len(recipe.profiles) * _COPIES * _weights(bundle, recipe.graph))


def limits_for(bundle: Bundle, recipe: EngineRecipe, gpu_memory: int | None) -> Limits:
    """Plan to build one engine within what is free now.

    gpu_memory: the GPU's whole memory in bytes, None where there is none. Raises EngineError,
    saying what it takes and what there is, when the builder alone takes more than is free.
    """
    needed, free = building_takes(bundle, recipe), available_memory()
    if free is None:
        return Limits(streams=streams(bundle, gpu_memory))
    if needed > free:
        raise EngineError(
            f"building {recipe.file} takes about {needed / 1e9:.1f} GB of memory, and "
            f"{free / 1e9:.1f} GB are available: end other programs, add swap, or export the "
            "bundle in a smaller precision"
        )
    return Limits(max(_LEAST_WORKSPACE, free - needed), streams(bundle, gpu_memory))


def available_memory(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Bytes that programs can still take, swap included; None where the system does not say."""
    try:
        told = dict(re.findall(r"^(\w+):\s+(\d+) kB$", meminfo.read_text(), re.MULTILINE))
        return 1024 * (int(told["MemAvailable"]) + int(told.get("SwapFree", 0)))
    except (OSError, KeyError):
        return None


def streams(bundle: Bundle, gpu_memory: int | None) -> bool:
    """Whether a GPU cannot hold all weights at once; None for no GPU, or one that is not known."""
    graphs = bundle.manifest.graphs.values()
    weights = sum(_weights(bundle, graph) for graph in graphs)
    return gpu_memory is not None and _RUNNING * weights > gpu_memory


def _weights(bundle: Bundle, graph: str) -> int:
    """Bytes of a graph and of the weights beside it."""
    files = bundle.manifest.files
    return sum(facts.bytes for name, facts in files.items() if name.startswith(graph))
