"""One NVIDIA GPU through the CUDA driver's C interface (cuda-bindings), and nothing above it.

Everything runs on one stream, in order. Pointers are plain integers.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from idetex_edge.errors import EngineError


def cuda_driver(engine: str) -> Any:  # noqa: ANN401 (an untyped module)
    """The module `cuda.bindings.driver`; raises EngineError when it is not installed.

    engine: for which it is, and the name of the extra that brings it.
    """
    try:
        return import_module("cuda.bindings.driver")
    except ImportError:
        raise EngineError(
            f"the {engine} engine needs cuda-bindings; pip install 'idetex-edge[{engine}]'"
        ) from None


class Device:
    """The first GPU: memory, copies, kernels and graphs. Everything it made is freed with it."""

    def __init__(self, api: Any, engine: str) -> None:  # noqa: ANN401 (an untyped module)
        """Open it through `cuda_driver()` for an engine; raises EngineError when there is none."""
        self._api = api
        try:
            self._call("cuInit", 0)
            count = self._call("cuDeviceGetCount")
        except Exception as error:
            # A missing libcuda is an error of the binding's own, of a class that has moved.
            reason = str(error).splitlines()[0]
            raise EngineError(
                f"the {engine} engine needs an NVIDIA GPU and its driver: {reason}"
            ) from None
        if not count:
            raise EngineError(f"the {engine} engine needs an NVIDIA GPU; this machine shows none")
        device = self._call("cuDeviceGet", 0)
        kinds = api.CUdevice_attribute
        major, minor, self.processors = (
            int(self._call("cuDeviceGetAttribute", kind, device))
            for kind in (
                kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
                kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
                kinds.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
            )
        )
        self.arch = f"sm_{major}{minor}"
        name = self._call("cuDeviceGetName", 256, device)
        self.name = bytes(name).partition(b"\0")[0].decode(errors="replace")
        self.memory = int(self._call("cuDeviceTotalMem", device))
        self._context = self._call("cuDevicePrimaryCtxRetain", device)
        self.make_current()
        self._stream = self._call("cuStreamCreate", 1)
        weakref.finalize(self, _quietly, api.cuDevicePrimaryCtxRelease, device)

    @property
    def stream(self) -> int:
        """The handle of the one stream."""
        return int(self._stream)

    def make_current(self) -> None:
        """Let the calling thread use this device; the driver keeps that for each thread."""
        self._call("cuCtxSetCurrent", self._context)

    def allocate(self, size: int, owner: object) -> int:
        """Device memory of `size` bytes, aligned to 256, freed when `owner` is."""
        address = int(self._call("cuMemAlloc", max(size, 1)))
        weakref.finalize(owner, _quietly, self._api.cuMemFree, address)
        return address

    def pinned(self, size: int, owner: object) -> npt.NDArray[np.uint8]:
        """Host memory that graphs may copy from and to: uint8 [size], freed when `owner` is."""
        address = int(self._call("cuMemAllocHost", max(size, 1)))
        weakref.finalize(owner, _quietly, self._api.cuMemFreeHost, address)
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))

    def clear(self, address: int, size: int) -> None:
        """Fill memory with zeros."""
        self._call("cuMemsetD8Async", address, 0, size, self._stream)

    def copy(self, to: int, source: int, size: int) -> None:
        """Copy within the device's memory."""
        if size:
            self._call("cuMemcpyDtoDAsync", to, source, size, self._stream)

    def upload(self, address: int, data: npt.NDArray[Any]) -> None:
        """Copy an array to the device; a graph repeats the copy of the array's memory."""
        data = np.ascontiguousarray(data)
        if data.nbytes:
            self._call("cuMemcpyHtoDAsync", address, data.ctypes.data, data.nbytes, self._stream)

    def download(self, data: npt.NDArray[Any], address: int) -> None:
        """Copy from the device into a contiguous array; there after `synchronize`."""
        self._call("cuMemcpyDtoHAsync", data.ctypes.data, address, data.nbytes, self._stream)

    def synchronize(self) -> None:
        """Wait for everything that was asked for; raises EngineError when any of it failed."""
        self._call("cuStreamSynchronize", self._stream)

    def load(self, image: bytes, function: str, shared: int, owner: object) -> Any:  # noqa: ANN401
        """A cubin's kernel, for `launch`; unloaded when `owner` is freed."""
        module = self._call("cuModuleLoadData", image)
        weakref.finalize(owner, _quietly, self._api.cuModuleUnload, module)
        handle = self._call("cuModuleGetFunction", module, function.encode())
        kind = self._api.CUfunction_attribute
        self._call(
            "cuFuncSetAttribute",
            *(handle, kind.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared),
        )
        return handle

    def launch(
        self,
        handle: Any,  # noqa: ANN401 (a driver's handle)
        grid: tuple[int, int],
        threads: int,
        shared: int,
        parameters: int,
    ) -> None:
        """Run a kernel; `parameters` is the address of an array of pointers to its arguments."""
        self._call(
            "cuLaunchKernel",
            *(handle, *grid, 1, threads, 1, 1, shared, self._stream, parameters, 0),
        )

    def capture(self, work: Callable[[], None], owner: object) -> Any:  # noqa: ANN401
        """Record what `work` asks for instead of doing it; returns what `replay` takes."""
        mode = self._api.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call("cuStreamBeginCapture", self._stream, mode)
        try:
            work()
        finally:
            graph = self._call("cuStreamEndCapture", self._stream)
        recorded = self._call("cuGraphInstantiate", graph, 0)
        self._call("cuGraphDestroy", graph)
        weakref.finalize(owner, _quietly, self._api.cuGraphExecDestroy, recorded)
        return recorded

    def replay(self, recorded: Any) -> None:  # noqa: ANN401 (a driver's handle)
        """Do what was recorded."""
        self._call("cuGraphLaunch", recorded, self._stream)

    def _call(self, name: str, *arguments: object) -> Any:  # noqa: ANN401 (the driver's own types)
        code, *results = getattr(self._api, name)(*arguments)
        if int(code):
            reason = getattr(code, "name", code)
            raise EngineError(f"the GPU refused {name}: {reason}")
        return results[0] if results else None


def _quietly(free: Callable[[Any], object], what: object) -> None:
    # At the interpreter's end the driver may be gone already, and its memory with it.
    free(what)
