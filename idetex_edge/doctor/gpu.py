"""NVIDIA GPUs, asked of the driver itself: no package is needed, on Jetson as on a desktop."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

_LIBRARIES: Final = ("libcuda.so.1", "nvcuda.dll")

# CUdevice_attribute, from the CUDA driver API's reference.
_CAPABILITY_MAJOR: Final = 75
_CAPABILITY_MINOR: Final = 76

_NAME_LENGTH: Final = 256


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU: its name, compute capability such as "8.7", and memory in bytes."""

    name: str
    capability: str
    memory: int


@dataclass(frozen=True, slots=True)
class Driver:
    """What the driver says.

    cuda: the newest CUDA that it runs, such as "12.6"; None without a driver. problem: why no GPU
    can be used, None where there are some.
    """

    cuda: str | None
    gpus: tuple[Gpu, ...]
    problem: str | None


def ask_driver(load: Callable[[str], Any] = ctypes.CDLL) -> Driver:
    """Ask the CUDA driver for its version and GPUs; `load` opens a shared library by name."""
    driver = None
    for library in _LIBRARIES:
        try:
            driver = load(library)
            break
        except OSError:
            continue
    if driver is None:
        return Driver(None, (), "no NVIDIA driver is installed")
    status = driver.cuInit(0)
    if status:
        return Driver(None, (), f"the NVIDIA driver cannot start (CUDA error {status})")
    version, count = ctypes.c_int(), ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(version))
    cuda = f"{version.value // 1000}.{version.value % 1000 // 10}"
    driver.cuDeviceGetCount(ctypes.byref(count))
    gpus = tuple(_gpu(driver, index) for index in range(count.value))
    return Driver(cuda, gpus, None if gpus else "the NVIDIA driver finds no GPU")


def _gpu(driver: Any, index: int) -> Gpu:  # noqa: ANN401 - a shared library has no types
    device, memory = ctypes.c_int(), ctypes.c_size_t()
    name = ctypes.create_string_buffer(_NAME_LENGTH)
    major, minor = ctypes.c_int(), ctypes.c_int()
    driver.cuDeviceGet(ctypes.byref(device), index)
    driver.cuDeviceGetName(name, _NAME_LENGTH, device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    for into, attribute in ((major, _CAPABILITY_MAJOR), (minor, _CAPABILITY_MINOR)):
        driver.cuDeviceGetAttribute(ctypes.byref(into), attribute, device)
    return Gpu(name.value.decode(), f"{major.value}.{minor.value}", memory.value)
