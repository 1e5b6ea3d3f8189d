"""Numbers beyond FP16 in the `triton` engine: kept away by powers of two, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import quiet, to_bundle
from loud import LAST, save_loud, save_shouting

pytest.importorskip("triton", reason="kernels' references stand beside Triton's functions")

from host_gpu import HostGpu
from PIL import Image
from skimage import data
from test_triton_engine import (
    answers,
    assert_close,
    pretended_build,
    variants_of,
    with_gpu_part,
)

from export.calibration.plan import Peaks, Plan
from export.checkpoint import open_checkpoint
from export.triton.add import add_triton, measured_plan
from export.triton.range import quieted
from idetex_edge.bundle import Bundle, open_bundle
from idetex_edge.engines import load_engine
from idetex_edge.engines.triton import TritonEngine
from idetex_edge.errors import ExportError


@pytest.fixture(scope="module")
def loud_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_loud(tmp_path_factory.mktemp("loud") / "model")


@pytest.fixture(scope="module")
def loud_bundle(loud_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return open_bundle(to_bundle(loud_checkpoint, tmp_path_factory.mktemp("loud") / "bundle"))


@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value")
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_loud_block_stays_within_half(
    precision: str, loud_checkpoint: Path, loud_bundle: Bundle, tmp_path: Path
) -> None:
    plan = measured_plan(loud_bundle, open_checkpoint(loud_checkpoint), quiet)
    assert list(plan.wide) == [LAST]
    picture = Image.fromarray(data.astronaut()[:112, :140])
    right, logits = answers(load_engine("onnx", loud_bundle, 1), picture, loud_bundle)
    for seen, name in ((plan, "seen"), (Plan(), "blind")):
        bundle = with_gpu_part(
            *(loud_checkpoint, loud_bundle.path, tmp_path / name, precision, "float", seen)
        )
        engine = TritonEngine(bundle, HostGpu(variants_of(bundle.path, precision)))
        features, got = answers(engine, picture, bundle)
        if name == "blind":
            # Infinity, or where INT8 has rounded that, the block's part in no row.
            assert not np.linalg.norm(features - right) < 0.2 * np.linalg.norm(right)
            continue
        ratio = 5e-3 if precision == "fp16" else 4e-2
        assert_close(features, right, ratio)
        for mine, theirs in zip(got, logits, strict=True):
            assert_close(mine, theirs, ratio)


def test_factors_are_powers_of_two_with_room_for_other_pictures() -> None:
    peaks = {"a.down_proj": 1e6, "b.down_proj": 20_000.0, "c.gate_proj": 20_000.0}
    wide = {name: Peaks(peak, 1.0) for name, peak in peaks.items()}
    wide["d.down_proj"] = Peaks(1.0, 1e9)  # What it gives goes to the stream, which is FP32.
    assert quieted(Plan(wide=wide)) == {"a.down_proj": 64, "b.down_proj": 2, "d.down_proj": 1}
    for name, peak in (("visual.merger.mlp.2", 1e5), ("x.down_proj", np.inf)):
        with pytest.raises(
            ExportError, match=f"{name} takes up to .*needs the onnx engine"
        ) as told:
            quieted(Plan(wide={name: Peaks(peak, 1.0)}))
        assert "\n" not in str(told.value)


def test_what_attention_cannot_read_is_refused(tmp_path: Path) -> None:
    checkpoint = save_shouting(tmp_path / "model")
    bundle = open_bundle(to_bundle(checkpoint, tmp_path / "bundle"))
    kernels = pretended_build(tmp_path / "kernels", variants_of(bundle.path, "int8"))
    opened = open_checkpoint(checkpoint)
    before = sorted(path.name for path in bundle.path.iterdir())
    with pytest.raises(ExportError, match="v_proj gives attention up to"):
        add_triton(
            bundle, opened, kernels, "int8", "int8", measured_plan(bundle, opened, quiet), quiet
        )
    assert sorted(path.name for path in bundle.path.iterdir()) == before


def test_weights_beyond_half_are_told(
    tiny_checkpoint: Path, tiny_bundle_path: Path, tmp_path: Path
) -> None:
    """A factor that is too large for down's own weights in FP16."""
    plan = Plan(wide={"text.layers.0.mlp.down_proj": Peaks(1e12, 1.0)})
    with pytest.raises(ExportError, match=r"layers\.0\.down has weights beyond FP16's range"):
        with_gpu_part(tiny_checkpoint, tiny_bundle_path, tmp_path, plan=plan)
