"""What a builder says of an engine, read from its messages: memory, layers, number formats.

An engine can be loaded only where there is a GPU; its builder lists the layers anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

_ACTIVATIONS: Final = re.compile(r"Total Activation Memory: (\d+) bytes")
_WEIGHTS: Final = re.compile(r"Total Weights Memory: (\d+) bytes")
_LAYER: Final = re.compile(r"Name: ([^,]*), LayerType: (\w+), Inputs: \[(.*?)\], (?:Constants|Out)")
_INT8: Final = "Datatype: Int8"
_DECORATION: Final = re.compile(r"(?: \[profile \d+\])?(?:_myl\d+_\d+)?$")
"""What the builder puts behind the names of the layers that it has merged."""

_FUSED_ATTENTION: Final = "_mha_"


@dataclass(frozen=True, slots=True)
class EngineReport:
    """One built engine.

    operators: the network's layers by type, such as KV_CACHE_UPDATE. activations: bytes of working
    memory for each profile. weights: bytes. layers: how many the engine runs, all profiles
    together; attention: those that are one fused attention kernel. int8: the matrices that are
    multiplied in 8 bits, by name.
    """

    name: str
    bytes: int
    operators: Mapping[str, int]
    activations: tuple[int, ...]
    weights: int
    layers: int
    attention: int
    int8: frozenset[str]

    def __str__(self) -> str:
        working = " + ".join(f"{size / 1e6:.1f}" for size in self.activations)
        return (
            f"{self.name}: {self.bytes / 1e6:.1f} MB, weights {self.weights / 1e6:.1f} MB, working "
            f"memory {working} MB by profile; {self.operators.get('KV_CACHE_UPDATE', 0)} native "
            f"cache updates, {self.operators.get('ATTENTION_INPUT', 0)} attention layers, "
            f"{len(self.int8)} matrices in INT8"
        )


def read_messages(
    name: str, size: int, operators: Mapping[str, int], messages: Iterable[str]
) -> EngineReport:
    """Put a builder's messages together."""
    text = "\n".join(messages)
    layers = _LAYER.findall(text)
    eights = {
        _DECORATION.sub("", part)
        for names, _, inputs in layers
        if _INT8 in inputs
        for part in names.split("+")
    }
    return EngineReport(
        name=name,
        bytes=size,
        operators=operators,
        activations=tuple(int(found) for found in _ACTIVATIONS.findall(text)),
        weights=sum(int(found) for found in _WEIGHTS.findall(text)),
        layers=len(layers),
        attention=sum(_FUSED_ATTENTION in layer for layer, _, _ in layers),
        int8=frozenset(eights),
    )


def operators_of(network: Any) -> dict[str, int]:  # noqa: ANN401 - TensorRT has no types
    """Count a network's layers by type."""
    counts: dict[str, int] = {}
    for index in range(network.num_layers):
        kind = str(network.get_layer(index).type).rpartition(".")[2]
        counts[kind] = counts.get(kind, 0) + 1
    return counts
