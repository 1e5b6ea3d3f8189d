"""The `triton` engine's two seams: the CUDA driver below it, and the kernels' rules beside it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from inspect import signature
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("triton", reason="kernels' references stand beside Triton's functions")

from host_gpu import HostGpu
from test_triton_engine import answers, variants_of, with_gpu_part

from idetex_edge.bundle import Bundle
from idetex_edge.cuda.driver import Device
from idetex_edge.engines.triton import TritonEngine
from idetex_edge.measuring.scenarios import picture
from idetex_edge.triton.contents import CONTENTS, KernelFacts, KernelsFacts, read_contents
from idetex_edge.triton.kernel import Kernels
from kernels import linear
from kernels.configurations import WEIGHTS, needed, shape_of


@pytest.fixture(scope="module")
def bundle(
    tiny_checkpoint: Path, tiny_bundle_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    """The tiny bundle with FP16 weights and an FP16 cache for a GPU."""
    return with_gpu_part(tiny_checkpoint, tiny_bundle_path, tmp_path_factory.mktemp("gpu"))


def test_the_pretended_driver_has_the_real_ones_functions() -> None:
    """Names, and how many arguments each takes, as cuda-bindings documents them."""
    driver = pytest.importorskip("cuda.bindings.driver")
    for name in [name for name in vars(HostGpu) if name.startswith("cu")]:
        documented = str(getattr(driver, name).__doc__).splitlines()[0]
        count = documented.split("(", 1)[1].count(",") + ("()" not in documented)
        assert count == len(signature(getattr(HostGpu, name)).parameters) - 1, documented
    for kind in ("CUdevice_attribute", "CUfunction_attribute", "CUstreamCaptureMode"):
        for value in vars(getattr(HostGpu, kind)):
            assert hasattr(getattr(driver, kind), value)


@pytest.mark.parametrize("processors", [1, 16, 132])
def test_engine_and_kernels_choose_the_same_tiles(bundle: Bundle, processors: int) -> None:
    """The rule is written twice, since neither may import the other."""
    variants = needed([shape_of(bundle.path / "manifest.json")], WEIGHTS)
    device = Device(HostGpu(variants, processors=processors), "triton")
    facts = {
        v.name: KernelFacts(
            *(v.kernel.__name__, 0, 1, v.warps, 0, tuple(v.types.values())),
            *(int(v.constants.get(name, 1)) for name in ("BLOCK_M", "BLOCK_N")),
        )
        for v in variants
    }
    contents = replace(read_contents(bundle), kernels={"sm_87": KernelsFacts(CONTENTS, facts)})
    kernels = Kernels(device, bundle, contents)
    chosen: list[str] = []

    def noted(self: Kernels, name: str) -> str:
        chosen.append(name)
        return name

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Kernels, "__getitem__", noted)
        for form in linear.FORMS:
            for rows in (1, 8, 9, 16, 17, 64, 65, 500, 5000):
                for outputs in (32, 2048, 22016):
                    kernels.tile(f"linear.fp16.{form}.gated", rows, outputs)
                    tile = linear.tile_of(form, "gated", rows, outputs, processors)
                    assert chosen[-1] == f"linear.fp16.{form}.gated.{tile}"


@pytest.mark.skipif(shutil.which("cc") is None, reason="the pretended libcuda is compiled")
def test_cuda_bindings_pass_everything_on(bundle: Bundle, tmp_path: Path) -> None:
    """The same answers through the real cuda-bindings, on a libcuda.so.1 of host memory."""
    pytest.importorskip("cuda.bindings.driver")
    script = Path(__file__).with_name("host_libcuda.py")
    output = tmp_path / "answers.npz"
    call = [sys.executable, script, bundle.path, "fp16", output]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    engine = TritonEngine(bundle, HostGpu(variants_of(bundle.path, "fp16")))
    features, logits = answers(engine, picture(112, 84), bundle)
    with np.load(output) as through:
        for got, right in zip(through.values(), (features, *logits), strict=True):
            np.testing.assert_array_equal(got, right)
