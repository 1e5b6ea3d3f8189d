"""Buffers planned as one allocation, and weights as another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from idetex_edge.bundle import Bundle
from idetex_edge.cuda.driver import Device
from idetex_edge.errors import BundleError
from idetex_edge.triton.contents import ALIGNMENT, CONTENTS, WEIGHTS, Contents, TensorFacts

_PART: Final = 64 * 2**20
"""Weights are copied in parts of this many bytes: no more of the file need be in memory."""


class Buffers:
    """Named device buffers that live and die together; contents undefined at first."""

    def __init__(self, device: Device, sizes: Mapping[str, int]) -> None:
        """Allocate buffers of `sizes` bytes, one behind the other, each aligned to 256."""
        self._offsets: dict[str, int] = {}
        end = 0
        for name, size in sizes.items():
            self._offsets[name] = end
            end += -(-size // ALIGNMENT) * ALIGNMENT
        self.bytes = end
        self._base = device.allocate(end, self)

    def __getitem__(self, name: str) -> int:
        """The address of a buffer."""
        return self._base + self._offsets[name]


class Weights:
    """A bundle's weights on the device, and which number format each matrix has."""

    def __init__(self, device: Device, bundle: Bundle, contents: Contents) -> None:
        """Upload the whole file; raises BundleError when it cannot be read."""
        self._tensors, self._forms = contents.tensors, contents.forms
        try:
            data = np.memmap(bundle.file(WEIGHTS), np.uint8, "r")
        except (OSError, ValueError) as error:
            raise BundleError(f"cannot map {WEIGHTS}: {error}; copy the bundle again") from None
        self._base = device.allocate(len(data), self)
        for begin in range(0, len(data), _PART):
            device.upload(self._base + begin, data[begin : begin + _PART])
            device.synchronize()

    def __getitem__(self, name: str) -> int:
        """The address of a tensor; raises BundleError when the bundle lacks it."""
        return self._base + self._facts(name).offset

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor as it is stored; raises BundleError when the bundle lacks it."""
        return self._facts(name).shape

    def form(self, layer: str) -> str:
        """The number format of a layer's matrix: "float", "int8" or "int4"."""
        return self._forms[layer]

    def _facts(self, name: str) -> TensorFacts:
        if name not in self._tensors:
            raise BundleError(f"{CONTENTS} lists no {name}; make the bundle's GPU part again")
        return self._tensors[name]
