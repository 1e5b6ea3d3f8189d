"""A libcuda.so.1 made of a GPU of host memory, for the real cuda-bindings to load.

The library knows one thing: where each function is, which Python tells it. What a function does is
`HostGpu`'s; here its C arguments become Python's, and its results go where C expects them. Handles
are numbers that stand for whatever the GPU calls its own.

    python tests/host_libcuda.py BUNDLE PRECISION OUTPUT

has the `triton` engine answer through cuda-bindings, and writes its logits.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Callable
from ctypes import c_int, c_size_t, c_ubyte, c_uint, c_uint64, c_void_p
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from host_gpu import HostGpu

_SOURCE: Final = """
#include <string.h>
static struct { char name[64]; void *at; } known[64];
static int count;
void let(const char *name, void *at) {
  strncpy(known[count].name, name, 63);
  known[count++].at = at;
}
int cuGetProcAddress_v2(const char *name, void **at, int version, unsigned long long flags,
                        int *status) {
  *at = 0;
  for (int i = 0; i < count; i++)
    if (!strcmp(known[i].name, name)) *at = known[i].at;
  if (status) *status = *at ? 0 : 1;
  return *at ? 0 : 500;
}
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
"""

_ATTRIBUTES: Final = {75: 0, 76: 1, 16: 2}
"""The driver's numbers of what `HostGpu` numbers from nought."""

_IN, _OUT = "in", "out"
Signature = tuple[tuple[str, Any], ...]
_SIGNATURES: Final[dict[str, Signature]] = {
    "cuInit": ((_IN, c_uint),),
    "cuDeviceGetCount": ((_OUT, c_int),),
    "cuDeviceGet": ((_OUT, c_int), (_IN, c_int)),
    "cuDeviceGetAttribute": ((_OUT, c_int), (_IN, c_int), (_IN, c_int)),
    "cuDeviceTotalMem": ((_OUT, c_size_t), (_IN, c_int)),
    "cuDevicePrimaryCtxRetain": ((_OUT, c_void_p), (_IN, c_int)),
    "cuDevicePrimaryCtxRelease": ((_IN, c_int),),
    "cuCtxSetCurrent": ((_IN, c_void_p),),
    "cuStreamCreate": ((_OUT, c_void_p), (_IN, c_uint)),
    "cuMemAlloc": ((_OUT, c_uint64), (_IN, c_size_t)),
    "cuMemFree": ((_IN, c_uint64),),
    "cuMemAllocHost": ((_OUT, c_void_p), (_IN, c_size_t)),
    "cuMemFreeHost": ((_IN, c_void_p),),
    "cuMemcpyHtoDAsync": ((_IN, c_uint64), (_IN, c_void_p), (_IN, c_size_t), (_IN, c_void_p)),
    "cuMemcpyDtoHAsync": ((_IN, c_void_p), (_IN, c_uint64), (_IN, c_size_t), (_IN, c_void_p)),
    "cuMemcpyDtoDAsync": ((_IN, c_uint64), (_IN, c_uint64), (_IN, c_size_t), (_IN, c_void_p)),
    "cuMemsetD8Async": ((_IN, c_uint64), (_IN, c_ubyte), (_IN, c_size_t), (_IN, c_void_p)),
    "cuStreamSynchronize": ((_IN, c_void_p),),
    "cuModuleLoadData": ((_OUT, c_void_p), (_IN, ctypes.c_char_p)),
    "cuModuleUnload": ((_IN, c_void_p),),
    "cuModuleGetFunction": ((_OUT, c_void_p), (_IN, c_void_p), (_IN, ctypes.c_char_p)),
    "cuFuncSetAttribute": ((_IN, c_void_p), (_IN, c_int), (_IN, c_int)),
    "cuLaunchKernel": (
        (_IN, c_void_p),
        *((_IN, c_uint),) * 7,
        *((_IN, c_void_p),) * 3,
    ),
    "cuStreamBeginCapture": ((_IN, c_void_p), (_IN, c_int)),
    "cuStreamEndCapture": ((_IN, c_void_p), (_OUT, c_void_p)),
    "cuGraphInstantiate": ((_OUT, c_void_p), (_IN, c_void_p), (_IN, c_uint64)),
    "cuGraphDestroy": ((_IN, c_void_p),),
    "cuGraphExecDestroy": ((_IN, c_void_p),),
    "cuGraphLaunch": ((_IN, c_void_p), (_IN, c_void_p)),
}
"""Each function's C arguments, as cuda.h declares them."""

_OPAQUE: Final = {
    "cuDevicePrimaryCtxRetain": "out",
    "cuCtxSetCurrent": 0,
    "cuModuleGetFunction": "out",
    "cuFuncSetAttribute": 0,
    "cuLaunchKernel": 0,
    "cuStreamEndCapture": "out",
    "cuGraphInstantiate": 0,
    "cuGraphDestroy": 0,
}
"""Where a function gives or takes what is no number to `HostGpu`: its result, or that argument."""


def load_library(folder: Path) -> ctypes.CDLL:
    """Compile the library and load it, before anything else looks for a libcuda.so.1."""
    source, library = folder / "libcuda.c", folder / "libcuda.so.1"
    source.write_text(_SOURCE)
    name = "-Wl,-soname,libcuda.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, name, source], check=True)
    loaded = ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    assert ctypes.CDLL("libcuda.so.1")._handle == loaded._handle, "another libcuda came first"
    return loaded


class HostLibrary:
    """The library's functions, told what to do."""

    def __init__(self, gpu: HostGpu, library: ctypes.CDLL) -> None:
        self._gpu, self._library = gpu, library
        self._objects: dict[int, Any] = {}
        self.errors: list[Exception] = []
        self._numbers = count(4096)
        # Kept: C holds their addresses.
        self._callbacks = [self._callback(name) for name in _SIGNATURES]
        self._callbacks.append(ctypes.CFUNCTYPE(c_int, c_void_p, c_int, c_int)(self._name))
        for known, callback in zip((*_SIGNATURES, "cuDeviceGetName"), self._callbacks, strict=True):
            alias = "cuGraphInstantiateWithFlags" if known == "cuGraphInstantiate" else known
            self._library.let(alias.encode(), ctypes.cast(callback, c_void_p))

    def _callback(self, name: str) -> Any:
        signature = _SIGNATURES[name]
        function: Callable[..., tuple[Any, ...]] = getattr(self._gpu, name)
        types = [c_void_p if way == _OUT else kind for way, kind in signature]

        def call(*given: Any) -> int:
            try:
                return done(*given)
            except Exception as error:
                # What leaves a callback is lost, and C would read a success.
                self.errors.append(error)
                return 999

        def done(*given: Any) -> int:
            taken = [value for value, (way, _) in zip(given, signature, strict=True) if way == _IN]
            # ctypes makes None of a null pointer.
            taken = [0 if value is None else value for value in taken]
            if name == "cuDeviceGetAttribute":
                taken[0] = _ATTRIBUTES[taken[0]]
            where = _OPAQUE.get(name)
            if isinstance(where, int):
                taken[where] = self._objects[taken[where]]
            code, *results = function(*taken)
            for result, (place, kind) in zip(results, _places(given, signature), strict=True):
                number = result
                if where == "out":
                    number = next(self._numbers)
                    self._objects[number] = result
                kind.from_address(place).value = number
            return int(code)

        return ctypes.CFUNCTYPE(c_int, *types)(call)

    def _name(self, place: int, length: int, device: int) -> int:
        code, name = self._gpu.cuDeviceGetName(length, device)
        ctypes.memmove(place, name, length)
        return int(code)


def _places(given: tuple[Any, ...], signature: Signature) -> list[tuple[int, Any]]:
    """Where a call's results go, and what C calls them."""
    return [
        (value, kind) for value, (way, kind) in zip(given, signature, strict=True) if way == _OUT
    ]


def main() -> None:
    """Answer through cuda-bindings, in a process that has no other libcuda."""
    path, precision, output = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    loaded = load_library(output.parent)

    from host_gpu import HostGpu
    from test_triton_engine import answers, variants_of

    from idetex_edge.bundle import open_bundle
    from idetex_edge.engines.triton import TritonEngine
    from idetex_edge.measuring.scenarios import picture

    gpu = HostGpu(variants_of(path, precision))
    library = HostLibrary(gpu, loaded)
    bundle = open_bundle(path)
    engine = TritonEngine(bundle)
    features, logits = answers(engine, picture(112, 84), bundle)
    np.savez(output, features, *logits)
    assert gpu.replays
    assert gpu.launches
    del engine
    assert (gpu.allocated, gpu.held) == (0, 0), "something was not freed"
    assert library.errors == []


if __name__ == "__main__":
    main()
