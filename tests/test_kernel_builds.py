from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton has no build for this platform")

from kernels import (
    append,
    configurations,
    decode_attention,
    linear,
    prefill_attention,
    projector,
    quantize,
)
from kernels.__main__ import main
from kernels.arches import SHARED_LIMITS
from kernels.build import BuildError, build, compile_variant, excess
from kernels.configurations import MODELS, WEIGHTS, Shape, needed, shape_of
from kernels.machine_code import PACES, loops
from kernels.variant import Variant

NANO = Path(__file__).parents[1] / "idetex_edge" / "models" / "nano"


HEAVIEST = [
    decode_attention.variant(128, 8, "int8", shared=True),
    decode_attention.variant(128, 8, "int8", shared=False),
    decode_attention.variant(128, 7, "int8", shared=False),
    decode_attention.variant(64, 2, "int8", shared=False),
    prefill_attention.variant(128, "int8"),
    prefill_attention.variant(80, "float"),
    linear.variant("int4", "gated", 64),
    linear.variant("int8", "gated", 64),
    linear.variant("float", "residual", 128),
    linear.variant("integer", "gated", 128),
]
"""Those with the most registers and shared memory, and sizes of the attention that were close."""


@pytest.mark.parametrize("arch", ["sm_87", "sm_120"])
@pytest.mark.parametrize("variant", HEAVIEST, ids=lambda variant: variant.name)
def test_kernels_keep_within_their_gpu(variant: Variant, arch: str) -> None:
    built = compile_variant(variant, arch)
    assert excess(built.entry, arch) == []
    assert built.cubin[:4] == b"\x7fELF"
    assert f".target {arch}" in built.ptx
    assert str(Path.cwd()).encode() not in built.cubin, "the cubin names a folder of this machine"
    given = [list(pair) for pair in variant.types.items()]
    arguments = [list(pair) for pair in built.entry["arguments"]]
    assert arguments[: len(given)] == given
    assert all(kind == "*i8" for _, kind in arguments[len(given) :])


@pytest.mark.parametrize(("arch", "gpu"), [("sm_87", "Jetson AGX Orin"), ("sm_90", "H200")])
@pytest.mark.parametrize(
    "variant",
    [
        linear.variant("float", "plain", 8),
        linear.variant("int8", "gated", 8),
        linear.variant("int8", "residual", 8),
        decode_attention.variant(128, 8, "int8", shared=False),
        decode_attention.variant(64, 2, "int8", shared=False),
        decode_attention.variant(128, 8, "float", shared=False),
    ],
    ids=lambda variant: variant.name,
)
def test_what_streams_memory_is_faster_than_memory(variant: Variant, arch: str, gpu: str) -> None:
    found = loops(compile_variant(variant, arch).cubin)
    assert found
    for loop in found:
        assert not any(name.startswith("I2F") for name in loop.instructions)
        assert any(name.startswith("LDGSTS") and "128" in name for name in loop.instructions)
        assert loop.cycles(variant.warps) <= 0.85 * variant.streamed / PACES[gpu]


def test_conversions_one_by_one_are_seen() -> None:
    """Rows to INT8 are converted by the slow unit, once each: it is a small part of a layer."""
    chosen = quantize.variant()
    found = loops(compile_variant(chosen, "sm_87").cubin)
    assert max(loop.converted(chosen.warps) for loop in found) >= 1024 / 16


def test_loops_are_told_as_a_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(
        sys, "argv", ["kernels", "loops", "--arch", "sm_87", "--match", "int8.64x2.single"]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    told = capsys.readouterr().out
    assert "decode_attention.fp16.int8.64x2.single" in told
    assert "8192" in told


def test_excess_names_spills_and_shared_memory() -> None:
    entry = {"stack": 8, "local": 0, "shared": SHARED_LIMITS["sm_86"] + 1}
    assert excess(entry, "sm_86") == [
        "8 bytes of stack memory",
        "101377 bytes of shared memory, above 101376",
    ]
    assert excess(entry | {"stack": 0}, "sm_87") == []


def test_a_kernel_that_spills_is_found() -> None:
    """64 rows by 128 columns by one warp cannot be held in registers."""
    greedy = prefill_attention.variant(128, "int8")
    greedy = Variant(greedy.name, greedy.kernel, greedy.types, greedy.constants, warps=1)
    assert excess(compile_variant(greedy, "sm_87").entry, "sm_87")


def test_a_build_is_whole_and_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = [append.variant(64, "int8"), projector.variant("rms", "fp16", 192)]
    told: list[tuple[str, int, int]] = []

    def advance(name: str, done: int, total: int) -> None:
        told.append((name, done, total))

    def needed_here(shapes: object, precisions: object) -> list[Variant]:
        return few

    monkeypatch.setattr("kernels.build.needed", needed_here)
    # Forked workers see what is patched here.
    build(["sm_87"], [MODELS["nano"]], ["fp16"], tmp_path, 1, advance)
    assert [done for _, done, _ in told] == [1, 2]
    index = json.loads((tmp_path / "sm_87" / "index.json").read_text())
    assert set(index["kernels"]) == {variant.name for variant in few}
    for name, entry in index["kernels"].items():
        cubin = (tmp_path / "sm_87" / f"{name}.cubin").read_bytes()
        assert entry["sha256"] == hashlib.sha256(cubin).hexdigest()
        assert entry["function"] in (tmp_path / "sm_87" / f"{name}.ptx").read_text()
    with pytest.raises(BuildError, match="unknown architecture sm_1"):
        build(["sm_1"], [], [], tmp_path, 1, advance)


def test_names_tell_variants_apart() -> None:
    variants = needed(MODELS.values(), WEIGHTS)
    described = {str((v.kernel, v.types, v.constants, v.warps, v.stages)): v.name for v in variants}
    assert len(described) == len({v.name for v in variants}) == len(variants)


def test_a_bundle_says_what_it_needs(tmp_path: Path) -> None:
    assert shape_of(NANO / "manifest.json") == MODELS["nano"] == Shape(64, 2, 256, 64, 192)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--precision", "int3"], "unknown precision 'int3'"),
        (["--arch", "sm_5"], "unknown architecture sm_5"),
        (["--bundle", "nowhere"], "cannot read nowhere/manifest.json"),
    ],
)
def test_wrong_calls_end_in_one_line(
    options: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["kernels", "build", "--output", str(tmp_path), *options])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1


def test_precisions_are_forms() -> None:
    assert {form for forms in configurations.WEIGHTS.values() for form in forms} == set(
        linear.FORMS
    )
