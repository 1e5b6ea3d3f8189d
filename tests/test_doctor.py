"""The doctor tells of a machine what its own files, driver and packages tell."""

import ctypes
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace

import onnxruntime
import pytest

from export.targets import TARGETS
from idetex_edge.bundle import Bundle
from idetex_edge.doctor.gpu import Gpu, ask_driver
from idetex_edge.doctor.machine import machine_facts
from idetex_edge.doctor.packages import clashes, installed
from idetex_edge.doctor.verdicts import build_verdicts, engine_verdicts
from idetex_edge.engines import Engine, load_engine
from idetex_edge.errors import EngineError
from idetex_edge.tensorrt.builders import BUILDERS, is_as_new_as

# A Jetson AGX Orin on JetPack 6.2, as its files have it (Tegra's, nvpmodel's and the kernel's).
_ORIN = {
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, "
    "EABI: aarch64, DATE: Wed Jan  8 01:49:37 UTC 2025\n",
    "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
    "proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd evtstrm aes asimdrdm asimddp\n\n"
    "processor\t: 1\nFeatures\t: fp asimd evtstrm aes asimdrdm asimddp\n",
    "proc/meminfo": "MemTotal:       64349120 kB\nMemAvailable:   60000000 kB\n",
    "var/lib/nvpmodel/status": "pmode:0002\n",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=2 NAME=MODE_30W >\n",
}

# A driver with one GPU, as far as it is asked here (CUDA driver API).
_DRIVER = """
#include <string.h>
int cuInit(unsigned flags) { return INIT; }
int cuDriverGetVersion(int *version) { *version = 12060; return 0; }
int cuDeviceGetCount(int *count) { *count = COUNT; return 0; }
int cuDeviceGet(int *device, int index) { *device = 40 + index; return 0; }
int cuDeviceGetName(char *name, int length, int device) {
  strncpy(name, device == 40 ? "Orin" : "another", length); return 0;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = 64ull << 30; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  *value = attribute == 75 ? 8 : attribute == 76 ? 7 : -1; return 0;
}
"""


def _library(folder: Path, **constants: int) -> Callable[[str], ctypes.CDLL]:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    (folder / "driver.c").write_text(_DRIVER)
    defined = [f"-D{name}={value}" for name, value in constants.items()]
    library = folder / "driver.so"
    command = [compiler, "-shared", "-fPIC", *defined, "driver.c", "-o", str(library)]
    subprocess.run(command, cwd=folder, check=True)

    def load(name: str) -> ctypes.CDLL:
        return ctypes.CDLL(str(library))

    return load


def test_a_jetson_is_told_from_its_files(tmp_path: Path) -> None:
    for name, text in _ORIN.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    facts = machine_facts(tmp_path)
    assert facts["board"] == "NVIDIA Jetson AGX Orin Developer Kit"
    assert facts["jetpack"] == "JetPack 6 (L4T 36.4.3)"
    assert facts["power mode"] == "2 (MODE_30W)"
    assert facts["8-bit products"] == "asimddp"
    assert facts["memory"] == "64.3 GB, 60.0 GB available"


def test_this_machine_is_told_right() -> None:
    facts = machine_facts()
    assert facts["python"] == platform.python_version()
    assert platform.machine() in facts["system"]
    if Path("/proc/meminfo").exists():
        whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
        assert float(facts["memory"].split()[0]) == pytest.approx(whole, rel=0.1)


def test_what_a_machine_does_not_tell_is_left_out(tmp_path: Path) -> None:
    assert set(machine_facts(tmp_path)) == {"system", "python", "processor"}


def test_a_driver_is_asked_through_its_own_interface(tmp_path: Path) -> None:
    found = ask_driver(_library(tmp_path, INIT=0, COUNT=2))
    assert (found.cuda, found.problem) == ("12.6", None)
    assert found.gpus == (Gpu("Orin", "8.7", 64 << 30), Gpu("another", "8.7", 64 << 30))


@pytest.mark.parametrize(
    ("constants", "problem"),
    [({"INIT": 100, "COUNT": 0}, "CUDA error 100"), ({"INIT": 0, "COUNT": 0}, "finds no GPU")],
)
def test_a_driver_without_a_gpu_says_why(
    tmp_path: Path, constants: dict[str, int], problem: str
) -> None:
    found = ask_driver(_library(tmp_path, **constants))
    assert found.gpus == ()
    assert problem in (found.problem or "")


def test_no_driver_is_no_error() -> None:
    def missing(name: str) -> None:
        raise OSError(name)

    assert ask_driver(missing).problem == "no NVIDIA driver is installed"


def test_two_flavours_of_onnx_runtime_clash() -> None:
    both = {"onnxruntime": "1.24", "onnxruntime-gpu": "1.24"}

    def version_of(package: str) -> str:
        if package in both:
            return both[package]
        raise PackageNotFoundError(package)

    assert installed(version_of) == both
    assert "uninstall both" in clashes(both)[0]
    assert clashes({"onnxruntime": "1.24"}) == []
    assert installed()["onnxruntime"] == version("onnxruntime") == onnxruntime.__version__


def test_every_engine_is_tried(tiny_bundle: Bundle) -> None:
    def broken(bundle: Bundle, threads: int | None) -> Engine:
        raise EngineError("there is no such device; buy one")

    works, fails = engine_verdicts(
        tiny_bundle,
        {"onnx:cpu": lambda b, threads: load_engine("onnx", b, threads), "device": broken},
    )
    assert (works.name, works.works) == ("onnx:cpu", True)
    assert (fails.works, fails.reason) == (False, "there is no such device; buy one")


def test_builders_are_judged_by_their_versions() -> None:
    def import_module(name: str) -> SimpleNamespace:
        if name == "tensorrt_rtx":
            raise ImportError(name)
        return SimpleNamespace(__version__="10.16.2")

    verdicts = {v.name: v for v in build_verdicts(import_module)}
    assert [name for name, v in verdicts.items() if v.works] == ["tensorrt-10.16", "tensorrt-10.3"]
    assert "has tensorrt 10.16.2, and the bundle needs 11.0" in verdicts["tensorrt-11"].reason
    assert "pip install" in verdicts["tensorrt-rtx"].reason
    assert is_as_new_as("10.16", "10.3")
    assert not is_as_new_as("10.3.0", "10.16")


def test_every_target_that_needs_a_builder_has_one() -> None:
    assert set(BUILDERS) == {name for name, target in TARGETS.items() if target.builder}


def test_the_command_tells_it_all_for_people_and_machines() -> None:
    command = [sys.executable, "-m", "idetex_edge", "doctor"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "onnx:cpu" in shown.stdout
    told = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    found = json.loads(told.stdout)
    assert found["engines"][0]["works"] is True
    assert found["packages"]["onnxruntime"] == onnxruntime.__version__
    assert {verdict["name"] for verdict in found["builds"]} == set(BUILDERS)
