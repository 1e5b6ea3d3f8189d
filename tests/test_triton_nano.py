"""nano in INT8 on a GPU of host memory: its answers against its checkpoint's."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import quiet

pytest.importorskip("triton", reason="kernels' references stand beside Triton's functions")

from host_gpu import HostGpu
from PIL import Image
from skimage import data
from test_triton_engine import variants_of, with_gpu_part

from export.bundling.graphs import Recipe
from export.bundling.write import write_draft
from export.calibration.plan import Plan
from export.checkpoint import open_checkpoint
from export.parity.measure import measure_parity
from export.parity.pictures import Photograph
from export.parity.questions import CHOICES
from export.parity.reference import Reference
from export.targets import EIGHT, find_target
from idetex_edge.engines.triton import TritonEngine

NANO = Path(__file__).parents[1] / "checkpoints" / "nano"


def test_int8_says_what_the_checkpoint_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """INT8 by INT8 in vision, projector and prefill, INT8 keys and values, weights as shipped."""
    monkeypatch.setattr("export.parity.answers.CHOICES", CHOICES[:4])
    checkpoint = open_checkpoint(NANO)
    (tmp_path / "plain").mkdir()
    recipe = Recipe(checkpoint, *find_target("onnx-cpu", "fp32"), Plan())
    plain = write_draft(recipe, tmp_path / "plain", quiet)
    bundle = with_gpu_part(NANO, plain.path, tmp_path / "gpu", "int8", "int8")
    gpu = HostGpu(variants_of(bundle.path, "int8"))
    picture = Photograph("chelsea", Image.fromarray(data.chelsea()[:112, :112]))
    parity = measure_parity(
        *(Reference(checkpoint), bundle, TritonEngine(bundle, gpu), [picture]),
        *(12, quiet),
    )
    assert parity.shortfalls(EIGHT) == []
    products = {name.split(".")[2] for name in gpu.launches if name.startswith("linear")}
    assert "integer" in products
