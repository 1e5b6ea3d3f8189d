"""Where the `onnx` engine computes: ONNX Runtime's execution providers, by the engine's name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class Provider:
    """One execution provider of ONNX Runtime.

    name: ONNX Runtime's. install: what brings it. targets: the export targets whose graphs it runs.
    options: what it is told (https://onnxruntime.ai/docs/execution-providers). plugin: the Python
    module of a provider that ONNX Runtime loads as a library of its own. apart: it computes in
    memory of its own, to which inputs are copied. profiled: it is told the shapes that the bundle's
    recipe has, and keeps what it compiles.
    """

    name: str
    install: str
    targets: tuple[str, ...]
    options: Mapping[str, str] = field(default_factory=dict[str, str])
    plugin: str = ""
    apart: bool = False
    profiled: bool = False


PROVIDERS: Final[Mapping[str, Provider]] = {
    "onnx:cpu": Provider(
        "CPUExecutionProvider", "pip install onnxruntime", ("onnx-cpu", "onnx-standard")
    ),
    "onnx:rtx": Provider(
        "NvTensorRTRTXExecutionProvider",
        "pip install 'idetex-edge[rtx]'",
        ("tensorrt-rtx",),
        # A session has one optimisation profile for prompts and one for decoding.
        {"nv_multi_profile_enable": "1"},
        plugin="onnxruntime_ep_nv_tensorrt_rtx",
        apart=True,
        profiled=True,
    ),
    "onnx:cuda": Provider(
        "CUDAExecutionProvider",
        "pip uninstall onnxruntime, then pip install 'onnxruntime-gpu[cuda,cudnn]'",
        ("onnx-standard", "tensorrt-rtx", "tensorrt-11", "tensorrt-10.16", "tensorrt-10.3"),
        # TF32 rounds what the proof of an FP32 bundle did not, and doubling an arena takes memory
        # that a Jetson's processor shares.
        {"use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"},
        apart=True,
    ),
}
"""By engine. The CPU is the embedded default; the others run where a card and its parts are."""
