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

_COPIES: Final = 1.32
"""How often a graph's weights lie in memory at the peak for each optimisation profile. One of all
of it is pages of their own files, which the system takes back when it needs them.

TensorRT-RTX 1.7 was measured with two and three profiles, without those pages (GB, the estimate
behind it): nano's vision graph in FP16 0.43 (0.47), 3B's 3.60 (4.43), 3B's decoder 10.34 (10.57).
With them 3B's graphs took 5.06 and 16.63 in FP16, 2.89 and 9.30 in INT8.
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
    """Bytes of memory at the peak of building one engine in a process of its own.

    Pages of the bundle's files, which come and go, are not counted.
    """
    copies = len(recipe.profiles) * _COPIES - 1
    return _BASE + int(copies * _weights(bundle, recipe.graph))


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
    """Bytes of a graph, of the weights beside it, and of the embedding where it may read that."""
    files, manifest = bundle.manifest.files, bundle.manifest
    own = sum(facts.bytes for name, facts in files.items() if name.startswith(graph))
    tied = manifest.graphs["decoder"] == graph
    return own + (files[manifest.embedding.file].bytes if tied else 0)
