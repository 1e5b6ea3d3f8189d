"""Python packages that engines are made of, and those that get in each other's way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Final

PACKAGES: Final = (
    "idetex-edge",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-ep-nv-tensorrt-rtx",
    "onnxruntime-ep-openvino",
    "tensorrt-rtx",
    "tensorrt",
    "cuda-core",
    "cuda-bindings",
    "llguidance",
    "tokenizers",
)
"""Distributions worth telling of, as `pip list` names them."""


def installed(version_of: Callable[[str], str] = version) -> dict[str, str]:
    """The versions of those of `PACKAGES` that are there."""
    found: dict[str, str] = {}
    for package in PACKAGES:
        try:
            found[package] = version_of(package)
        except PackageNotFoundError:
            continue
    return found


def clashes(packages: Mapping[str, str]) -> list[str]:
    """What is installed that cannot work together, each with what to do."""
    if {"onnxruntime", "onnxruntime-gpu"} <= packages.keys():
        return [
            "onnxruntime and onnxruntime-gpu are the same module, and whichever was installed "
            "last is half overwritten: pip uninstall both, then install one"
        ]
    return []
