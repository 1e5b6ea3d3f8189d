"""What an engine reads and writes: pairs of host and device memory, by the names of its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from idetex_edge.cuda.driver import Device


class Buffers:
    """Pinned host arrays and device memory of the same size; grown as larger ones are asked for."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._held: dict[str, _Pair] = {}

    def host(self, name: str, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """The host's array of a tensor, in this form: to be filled, or filled by `download`."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        held = self._held.get(name)
        if held is None or held.size < size:
            # What the last run left on the stream may still use the old one.
            self._device.synchronize()
            self._held[name] = held = _Pair(self._device, size)
        return held.host[:size].view(dtype).reshape(shape)

    @property
    def addresses(self) -> Mapping[str, int]:
        """Where each tensor lies on the device."""
        return {name: pair.address for name, pair in self._held.items()}

    def upload(self, name: str, array: npt.NDArray[Any]) -> None:
        """Copy a tensor's host array, as `host` gave it, to the device."""
        self._device.upload(self._held[name].address, array)

    def download(self, name: str, array: npt.NDArray[Any]) -> None:
        """Copy a tensor back into its host array; it is there once the device was waited for."""
        self._device.download(array, self._held[name].address)


class _Pair:
    def __init__(self, device: Device, size: int) -> None:
        self.size = size
        self.host = device.pinned(size, self)
        self.address = device.allocate(size, self)
