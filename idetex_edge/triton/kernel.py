"""Compiled kernels by name, and the packing of their arguments."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Mapping
from typing import Final

from idetex_edge.bundle import Bundle
from idetex_edge.cuda.driver import Device
from idetex_edge.errors import BundleError, EngineError
from idetex_edge.triton.contents import CONTENTS, Contents, KernelFacts

_FORMATS: Final[Mapping[str, str]] = {"i32": "i", "i32:16": "i", "fp32": "f"}
"""How `struct` packs an argument; all others are addresses."""
MIDDLE: Final = 64
"""Rows of the tile for layers that have too few for the largest."""
_SLOT: Final = 8
"""Each argument lies at a multiple of this many bytes, which suits every type."""


class Kernel:
    """A kernel on the device. `rows` and `outputs` are its tile, where it has one."""

    def __init__(self, device: Device, facts: KernelFacts, image: bytes) -> None:
        self._device, self._facts = device, facts
        self.rows, self.outputs = facts.rows, facts.outputs
        self._handle = device.load(image, facts.function, facts.shared, self)

    def __call__(self, grid: tuple[int, int], *arguments: float) -> None:
        """Launch over `grid`: addresses, integers and floats in the kernel's order.

        The driver copies the arguments before this returns, in a graph too.
        """
        # What Triton adds to the end is memory that no kernel of ours uses.
        types = self._facts.arguments
        values = [*arguments, *([0] * (len(types) - len(arguments)))]
        packed = (ctypes.c_uint64 * len(types))()
        for i, (kind, value) in enumerate(zip(types, values, strict=True)):
            if kind == "i32:16" and value % 16:
                raise EngineError(f"{self._facts.function} needs a multiple of 16, not {value}")
            struct.pack_into(_FORMATS.get(kind, "Q"), packed, i * _SLOT, value)
        start = ctypes.addressof(packed)
        pointers = (ctypes.c_void_p * len(types))(*(start + i * _SLOT for i in range(len(types))))
        self._device.launch(
            self._handle,
            grid,
            self._facts.warps * 32,
            self._facts.shared,
            ctypes.addressof(pointers),
        )


class Kernels:
    """The bundle's kernels for a device, loaded when first asked for."""

    def __init__(self, device: Device, bundle: Bundle, contents: Contents) -> None:
        """Raises EngineError when the bundle has none for the device's architecture."""
        if device.arch not in contents.kernels:
            raise EngineError(
                f"this bundle has kernels for {', '.join(sorted(contents.kernels)) or 'no GPU'}, "
                f"not for {device.arch}; add them with python -m export.triton"
            )
        self._device, self._facts = device, contents.kernels[device.arch]
        self._loaded: dict[str, Kernel] = {}
        self._tiles: dict[str, list[int]] = {}
        for name in self._facts.kernels:
            layer, _, rows = name.rpartition(".")
            if name.startswith("linear.") and rows.isdecimal():
                self._tiles.setdefault(layer, []).append(int(rows))
        try:
            self._images = bundle.file(self._facts.file).read_bytes()
        except OSError as error:
            raise BundleError(f"cannot read {self._facts.file}: {error}") from None

    def __getitem__(self, name: str) -> Kernel:
        """Load a kernel by name; raises BundleError when the bundle lacks it."""
        if name not in self._loaded:
            facts = self._facts.kernels.get(name)
            if facts is None:
                raise BundleError(
                    f"{CONTENTS} has no kernel {name} for {self._device.arch}; make the bundle's "
                    "GPU part again"
                )
            image = self._images[facts.offset : facts.offset + facts.bytes]
            self._loaded[name] = Kernel(self._device, facts, image)
        return self._loaded[name]

    def tile(self, name: str, rows: int, outputs: int) -> Kernel:
        """Load the form of a linear kernel whose tile suits a layer (`kernels.linear.tile_of`).

        The smallest that takes all rows reads the weights once. Where none does, the largest reads
        the least, if there are enough of them for every multiprocessor. Raises BundleError when
        the bundle lacks the kernel.
        """
        tiles = sorted(self._tiles.get(name, []))
        if not tiles:
            return self[name]
        middle = [tile for tile in tiles if tile <= MIDDLE]
        for tile in middle:
            if rows <= tile:
                return self[f"{name}.{tile}"]
        largest = self._facts.kernels[f"{name}.{tiles[-1]}"]
        programs = -(-rows // largest.rows) * -(-outputs // largest.outputs)
        enough = programs >= self._device.processors
        return self[f"{name}.{tiles[-1] if enough else middle[-1]}"]
