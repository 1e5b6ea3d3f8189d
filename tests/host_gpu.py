"""A GPU made of host memory: the CUDA driver's functions, on which kernels' references run.

It stands in for `cuda.bindings.driver`. Memory is checked: an access outside a live allocation
fails, and so does one that is misaligned. A cubin is the name of a variant; launching it unpacks
the arguments by the variant's types, calls the plain reference of its kernel, and writes what that
gives, rounded as the kernel rounds. While a stream is captured, nothing runs.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import count
from types import SimpleNamespace
from typing import Any

import numpy as np
from host_kernels import RUN, Launch

from kernels.variant import Variant

_DTYPES: Mapping[str, Any] = {
    "*fp16": np.float16,
    "*fp32": np.float32,
    "*i32": np.int32,
    "*i8": np.int8,
    "*u8": np.uint8,
}
_C_TYPES: Mapping[str, Any] = {"i32": ctypes.c_int32, "fp32": ctypes.c_float}


STREAM = 77
"""The handle of the one stream."""


class Code(IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_NO_DEVICE = 100


@dataclass
class HostGpu:
    """The driver's interface. `arch`: major and minor compute capability; few `processors`, so
    that small layers too are cut into the tiles of large ones."""

    variants: Iterable[Variant]
    arch: tuple[int, int] = (8, 7)
    devices: int = 1
    processors: int = 2
    memory: int = 2**31
    launches: list[str] = field(default_factory=list[str])
    copies: int = 0
    replays: int = 0
    scratch: int = 2
    waits: bool = False
    """Whether work is done only when it is waited for, as late as a GPU may."""

    CUdevice_attribute = SimpleNamespace(
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR=0,
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR=1,
        CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT=2,
    )
    CUfunction_attribute = SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES=8)
    CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL=1)

    def __post_init__(self) -> None:
        self._variants = {variant.name: variant for variant in self.variants}
        self._live: dict[int, tuple[int, Any]] = {}
        self._loaded: dict[int, str] = {}
        self._captured: list[Callable[[], None]] | None = None
        self._graphs: dict[int, list[Callable[[], None]]] = {}
        self._current = False
        self._queue: list[Callable[[], None]] = []
        self._handles = count(1)

    @property
    def allocated(self) -> int:
        """Bytes of device and pinned memory that are not freed."""
        return sum(size for size, _ in self._live.values())

    @property
    def captures(self) -> bool:
        """Whether what is asked for is recorded instead of done."""
        return self._captured is not None

    @property
    def held(self) -> int:
        """Modules and graphs that are not freed."""
        return len(self._loaded) + len(self._graphs)

    # The driver's functions, each as cuda-bindings has it: a code, then the results.

    def cuInit(self, flags: int) -> tuple[Code]:
        return (Code.CUDA_SUCCESS,)

    def cuDeviceGetCount(self) -> tuple[Code, int]:
        return Code.CUDA_SUCCESS, self.devices

    def cuDeviceGet(self, index: int) -> tuple[Code, int]:
        return Code.CUDA_SUCCESS, index

    def cuDeviceGetAttribute(self, kind: int, device: int) -> tuple[Code, int]:
        return Code.CUDA_SUCCESS, (*self.arch, self.processors)[kind]

    def cuDeviceGetName(self, length: int, device: int) -> tuple[Code, bytes]:
        return Code.CUDA_SUCCESS, b"Host GPU".ljust(length, b"\0")

    def cuDeviceTotalMem(self, device: int) -> tuple[Code, int]:
        return Code.CUDA_SUCCESS, self.memory

    def cuDevicePrimaryCtxRetain(self, device: int) -> tuple[Code, str]:
        return Code.CUDA_SUCCESS, "context"

    def cuDevicePrimaryCtxRelease(self, device: int) -> tuple[Code]:
        return (Code.CUDA_SUCCESS,)

    def cuCtxSetCurrent(self, context: str) -> tuple[Code]:
        assert context == "context"
        self._current = True
        return (Code.CUDA_SUCCESS,)

    def cuStreamCreate(self, flags: int) -> tuple[Code, int]:
        return Code.CUDA_SUCCESS, STREAM

    def cuMemAlloc(self, size: int) -> tuple[Code, int]:
        assert self._current
        assert self._captured is None, "memory is not allocated while a stream is captured"
        if self.allocated + size > self.memory:
            return Code.CUDA_ERROR_OUT_OF_MEMORY, 0
        # Filled with NaN: nobody may count on zeros.
        block = np.full(size + 256, 0xFF, np.uint8)
        address = -(-block.ctypes.data // 256) * 256
        self._live[address] = (size, block)
        return Code.CUDA_SUCCESS, address

    def cuMemFree(self, address: int) -> tuple[Code]:
        self._flush()  # the driver waits, too
        del self._live[address]
        return (Code.CUDA_SUCCESS,)

    cuMemAllocHost = cuMemAlloc
    cuMemFreeHost = cuMemFree

    def cuMemcpyHtoDAsync(self, to: int, source: int, size: int, stream: int) -> tuple[Code]:
        self.copies += 1
        if self.waits and self._captured is None and not self._is_live(source, size):
            # Ordinary memory is read before the call returns.
            data = ctypes.string_at(source, size)
            return self._do(lambda: self._write(to, data))
        return self._do(lambda: self._copy(to, source, size, to), source)

    def cuMemcpyDtoHAsync(self, to: int, source: int, size: int, stream: int) -> tuple[Code]:
        self.copies += 1
        return self._do(lambda: self._copy(to, source, size, source), to)

    def cuMemcpyDtoDAsync(self, to: int, source: int, size: int, stream: int) -> tuple[Code]:
        self.copies += 1
        self._check(source, size)
        return self._do(lambda: self._copy(to, source, size, to))

    def cuMemsetD8Async(self, to: int, value: int, size: int, stream: int) -> tuple[Code]:
        self._check(to, size)
        return self._do(lambda: self._fill(to, value, size))

    def cuStreamSynchronize(self, stream: int) -> tuple[Code]:
        assert self._captured is None, "a captured stream cannot be waited for"
        self._flush()
        return (Code.CUDA_SUCCESS,)

    def cuModuleLoadData(self, image: bytes) -> tuple[Code, int]:
        assert self._captured is None, "modules are not loaded while a stream is captured"
        name = image.decode().strip()
        assert name in self._variants
        handle = next(self._handles)
        self._loaded[handle] = name
        return Code.CUDA_SUCCESS, handle

    def cuModuleUnload(self, module: int) -> tuple[Code]:
        del self._loaded[module]
        return (Code.CUDA_SUCCESS,)

    def cuModuleGetFunction(self, module: int, function: bytes) -> tuple[Code, str]:
        name = self._loaded[module]
        kernel: Any = self._variants[name].kernel
        assert function.decode() == kernel.__name__
        return Code.CUDA_SUCCESS, name

    def cuFuncSetAttribute(self, handle: str, kind: int, value: int) -> tuple[Code]:
        assert kind == 8
        return (Code.CUDA_SUCCESS,)

    def cuLaunchKernel(
        self, handle: str, gx: int, gy: int, gz: int, bx: int, by: int, bz: int, shared: int,
        stream: int, parameters: int, extra: int,
    ) -> tuple[Code]:  # fmt: skip
        variant = self._variants[handle]
        assert (bx, by, bz) == (variant.warps * 32, 1, 1)
        assert min(gx, gy) > 0, "a grid of no programs is refused"
        assert gz == 1
        types = [*variant.types.values(), *["*i8"] * self.scratch]
        pointers = (ctypes.c_uint64 * len(types)).from_address(parameters)
        # Copied here and now, as the driver does: what they point to may be gone on replay.
        values: list[Any] = []
        for kind, place in zip(types, pointers, strict=True):
            assert place % 8 == 0
            plain = kind.split(":")[0]
            c_type = ctypes.c_uint64 if kind.startswith("*") else _C_TYPES[plain]
            value = c_type.from_address(place).value
            assert not kind.endswith(":16") or value % 16 == 0, (handle, kind, value)
            assert not kind.startswith("*") or value % 16 == 0, (handle, kind, value)
            values.append(value)
        assert values[len(variant.types) :] == [0] * self.scratch
        arguments = dict(zip(variant.types, values, strict=False))
        launch = Launch(self, variant, (gx, gy), arguments)
        return self._do(lambda: self._run(launch))

    def cuStreamBeginCapture(self, stream: int, mode: int) -> tuple[Code]:
        assert self._captured is None
        self._captured = []
        return (Code.CUDA_SUCCESS,)

    def cuStreamEndCapture(self, stream: int) -> tuple[Code, list[Callable[[], None]]]:
        assert self._captured is not None
        captured, self._captured = self._captured, None
        return Code.CUDA_SUCCESS, captured

    def cuGraphInstantiate(self, graph: list[Any], flags: int) -> tuple[Code, int]:
        handle = next(self._handles)
        self._graphs[handle] = list(graph)
        return Code.CUDA_SUCCESS, handle

    def cuGraphDestroy(self, graph: list[Any]) -> tuple[Code]:
        graph.clear()
        return (Code.CUDA_SUCCESS,)

    def cuGraphExecDestroy(self, handle: int) -> tuple[Code]:
        del self._graphs[handle]
        return (Code.CUDA_SUCCESS,)

    def cuGraphLaunch(self, handle: int, stream: int) -> tuple[Code]:
        self.replays += 1
        for work in self._graphs[handle]:
            self._do(work)
        return (Code.CUDA_SUCCESS,)

    # What they do.

    def view(self, address: int, kind: str, *shape: int) -> np.ndarray[Any, Any]:
        """Device memory as an array; fails where it lies outside a live allocation."""
        return self.read(address, _DTYPES[kind], shape)

    def read(self, address: int, kind: Any, shape: Sequence[int]) -> np.ndarray[Any, Any]:
        """Device memory of a numpy type, as `view` gives it."""
        dtype = np.dtype(kind)
        size = int(np.prod(shape)) * dtype.itemsize
        self._check(address, size)
        assert address % dtype.itemsize == 0
        memory = (ctypes.c_uint8 * size).from_address(address)
        return np.ctypeslib.as_array(memory).view(dtype).reshape(shape)

    def enqueue(self, work: Callable[[], None]) -> None:
        """Do something in the stream's order: now, or when what is captured is replayed."""
        self._do(work)

    def _is_live(self, address: int, size: int) -> bool:
        return any(a <= address and address + size <= a + n for a, (n, _) in self._live.items())

    def _flush(self) -> None:
        queue, self._queue = self._queue, []
        for work in queue:
            work()

    def _write(self, to: int, data: bytes) -> None:
        self._check(to, len(data))
        ctypes.memmove(to, data, len(data))

    def _check(self, address: int, size: int) -> None:
        inside = self._is_live(address, size)
        assert inside, f"{size} bytes at {address} lie outside every allocation"

    def _copy(self, to: int, source: int, size: int, device: int) -> None:
        self._check(device, size)
        ctypes.memmove(to, source, size)

    def _fill(self, to: int, value: int, size: int) -> None:
        ctypes.memset(to, value, size)

    def _do(self, work: Callable[[], None], host: int = 0) -> tuple[Code]:
        if self._captured is None and self.waits:
            self._queue.append(work)
        elif self._captured is None:
            work()
        else:
            # A graph outlives ordinary arrays: it may only copy from and to pinned memory.
            if host:
                self._check(host, 1)
            self._captured.append(work)
        return (Code.CUDA_SUCCESS,)

    def _run(self, launch: Launch) -> None:
        self.launches.append(launch.variant.name)
        RUN[launch.variant.name.split(".")[0]](launch)
