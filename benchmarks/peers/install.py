"""Makes the peers' environments, each in a folder of `.peers/`.

    python benchmarks/peers/install.py [openvino] [llama.cpp]

Needs the package index; llama.cpp also a C++ compiler, cmake, and some ten minutes of two cores.
transformers runs in the development environment. onnxruntime-genai is not among them: its builder
makes graphs of the text model alone.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from benchmarks.peers.catalogue import ENVIRONMENTS
from benchmarks.processes import ROOT

_PACKAGES: Final[Mapping[str, tuple[str, ...]]] = {
    # The exporter wants transformers before 5.
    "openvino": (
        "openvino-genai==2026.4.*",
        "optimum-intel[nncf]==2.2.*",
        "transformers==4.57.6",
        "torch==2.13.0",
    ),
    "llama.cpp": ("transformers==4.57.6", "torch==2.13.0", "gguf", "sentencepiece", "protobuf"),
}


def environment(name: str) -> Path:
    """Make a virtual environment with a peer's packages and this one; its folder."""
    folder = ENVIRONMENTS / name
    _run(sys.executable, "-m", "venv", str(folder))
    pip = str(folder / "bin" / "pip")
    _run(pip, "install", "--quiet", "--editable", str(ROOT), *_PACKAGES[name])
    return folder


def openvino() -> None:
    """Install OpenVINO GenAI; the exporter brings a torchvision that does not load."""
    pip = str(environment("openvino") / "bin" / "pip")
    _run(pip, "uninstall", "--quiet", "--yes", "torchvision")


def llama() -> None:
    """Build llama.cpp's server from the source that llama-cpp-python brings along."""
    folder = environment("llama.cpp")
    download = folder / "download"
    pip = str(folder / "bin" / "pip")
    source = ("--no-deps", "--no-binary", "llama-cpp-python", "llama-cpp-python")
    _run(pip, "download", "--quiet", "--dest", str(download), *source)
    (archive,) = download.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(download, filter="data")
    (tree,) = download.glob("*/vendor/llama.cpp")
    shutil.rmtree(folder / "source", ignore_errors=True)
    tree.rename(folder / "source")
    build = str(folder / "build")
    switches = ("GGML_NATIVE=ON", "LLAMA_BUILD_UI=OFF", "LLAMA_CURL=OFF", "BUILD_SHARED_LIBS=OFF")
    options = [f"-D{switch}" for switch in ("CMAKE_BUILD_TYPE=Release", *switches)]
    _run("cmake", "-S", str(folder / "source"), "-B", build, *options)
    _run("cmake", "--build", build, "--target", "llama-server", "--parallel")


_INSTALLERS: Final[Mapping[str, Callable[[], object]]] = {
    "openvino": openvino,
    "llama.cpp": llama,
}


def _run(*call: str) -> None:
    subprocess.run(call, check=True)


if __name__ == "__main__":
    for wanted in sys.argv[1:] or _INSTALLERS:
        _INSTALLERS[wanted]()
