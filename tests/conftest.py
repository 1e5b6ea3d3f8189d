from __future__ import annotations

from pathlib import Path

import pytest
import tiny
from hypothesis import settings

from export.convert import Conversion, convert
from idetex_edge.bundle import Bundle, open_bundle
from idetex_edge.engines import Engine, load_engine

# How long an example takes says nothing on a machine that does other work too.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


def quiet(stage: str, done: int, total: int) -> None:
    """Report no progress."""


def to_bundle(
    model: Path,
    output: Path,
    precision: str = "fp32",
    *,
    target: str = "onnx-cpu",
    calibration: Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Convert a checkpoint and prove it over 64 decoded tokens of each answer."""
    wanted = Conversion(
        model,
        output,
        target,
        precision,
        calibration=calibration,
        overwrite=overwrite,
        steps=64,
    )
    convert(wanted, quiet)
    return output


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen2.5-VL with nano's prompts and a tokenizer of every marker; read only."""
    return tiny.ask_briefly(tiny.save_qwen2_5_vl(tmp_path_factory.mktemp("checkpoints") / "tiny"))


@pytest.fixture(scope="session")
def brief_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint with a context of 1024, for conversions to TensorRT; read only."""
    return tiny.ask_briefly(
        tiny.save_qwen2_5_vl(tmp_path_factory.mktemp("brief") / "brief"), context=1024
    )


@pytest.fixture(scope="session")
def tiny_bundle_path(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint's FP32 bundle for onnx-cpu; read only."""
    return to_bundle(tiny_checkpoint, tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="session")
def tiny_bundle(tiny_bundle_path: Path) -> Bundle:
    return open_bundle(tiny_bundle_path)


@pytest.fixture(scope="session")
def tiny_engine(tiny_bundle: Bundle) -> Engine:
    return load_engine("onnx", tiny_bundle, threads=1)
