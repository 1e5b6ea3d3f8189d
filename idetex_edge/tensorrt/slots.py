"""Keys and values on the device, in the fixed slots that TensorRT's engines write in place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from idetex_edge.bundle import CacheFacts, TextFacts
from idetex_edge.cuda.driver import Device
from idetex_edge.tensorrt.runtime import Program


class Recorded(NamedTuple):
    """A decoding step as a CUDA graph, the addresses in it, and the context it was recorded of."""

    addresses: Mapping[str, int]
    graph: Any
    program: Program


class DeviceCache:
    """Keys and values of `rows` sequences: for each layer and kind [rows, kv_heads, slots, head].

    The engine's `present_*` are given the very addresses of its `past_*`: it writes new slots only.
    `recorded` holds captured decoding steps by (first row, rows), which know these addresses.
    """

    def __init__(self, device: Device, facts: TextFacts, form: CacheFacts, rows: int) -> None:
        self._device, self._facts, self.rows, self.slots = device, facts, rows, form.slots
        self._token = facts.head_dim * np.dtype(form.dtype).itemsize
        self._row = facts.kv_heads * self.slots * self._token
        self._parts = {
            f"{kind}_{layer}": device.allocate(rows * self._row, self)
            for layer in range(facts.layers)
            for kind in ("key", "value")
        }
        for address in self._parts.values():
            # Masked attention multiplies unfilled slots by zero: they must be numbers.
            device.clear(address, rows * self._row)
        self.recorded: dict[tuple[int, int], Recorded] = {}

    def addresses(self, first: int) -> dict[str, int]:
        """Of every `past_*` and `present_*`, from row `first` on."""
        return {
            f"{time}_{name}": address + first * self._row
            for name, address in self._parts.items()
            for time in ("past", "present")
        }

    def shapes(self, rows: int) -> dict[str, tuple[int, ...]]:
        """Of every `past_*`, for so many rows."""
        facts = self._facts
        shape = (rows, facts.kv_heads, self.slots, facts.head_dim)
        return {f"past_{name}": shape for name in self._parts}

    def copy_row(self, row: int, source: DeviceCache, source_row: int, length: int) -> None:
        """Copy the first `length` slots of another cache's row."""
        head = self.slots * self._token
        for name, address in self._parts.items():
            to, origin = address + row * self._row, source._parts[name] + source_row * self._row
            for place in range(0, self._facts.kv_heads * head, head):
                self._device.copy(to + place, origin + place, length * self._token)
