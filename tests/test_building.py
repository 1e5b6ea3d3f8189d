"""`idetex-edge build`: how much it takes, where engines go, and what happens when it ends early."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from command import run
from test_tensorrt import NANO, unproven

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")

from idetex_edge.bundle import Bundle
from idetex_edge.tensorrt import memory
from idetex_edge.tensorrt.builders import builder_of, builders_here
from idetex_edge.tensorrt.engines import Engines, engines_here
from idetex_edge.tensorrt.memory import Limits, available_memory, building_takes, limits_for
from idetex_edge.tensorrt.recipe import load_recipe
from idetex_edge.tensorrt.watching import Phases


@pytest.fixture(scope="module")
def bundle(brief_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The tiny model for TensorRT-RTX, without engines; read only."""
    folder = tmp_path_factory.mktemp("brief") / "bundle"
    return unproven(brief_checkpoint, folder, "tensorrt-rtx", "fp16")


PEAK = """
import os, subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(child.pid, 0)
print(os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024)
"""
"""In a small process: before it runs its program, a child counts as large as its parent."""


def test_the_estimate_is_above_the_peak_and_near(tmp_path: Path) -> None:
    bundle = unproven(NANO, tmp_path / "bundle", "tensorrt-rtx", "fp16")
    for name, recipe in load_recipe(bundle).engines.items():
        order = {
            "module": "tensorrt_rtx",
            "graph": str(bundle.file(recipe.graph)),
            "profiles": recipe.profiles,
            "limits": {"workspace": 2**28, "streams": False},
            "into": str(tmp_path / name),
        }
        command = [sys.executable, "-c", PEAK, sys.executable, "-m", "idetex_edge.tensorrt.apart"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(json.dumps(order).encode() + b"\n")
            child.stdin.flush()
            code, peak = (int(word) for word in child.stdout.read().split())
        assert code == 0
        assert 0.7 * building_takes(bundle, recipe) < peak < building_takes(bundle, recipe)


def test_build_keeps_engines_where_the_engine_looks(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IDETEX_CACHE", str(tmp_path))
    before = {path.name: path.read_bytes() for path in bundle.path.iterdir()}
    engines = Engines(bundle, load_recipe(bundle), builder_of("tensorrt-rtx"), "a card", 2**34)
    assert not engines.here
    built = run("build", bundle.path, "--json")
    assert built.code == 0, built.err
    (told,) = built.rows
    assert told["builder"].startswith("tensorrt_rtx 1.")
    assert engines.here
    assert {name: len(engines.read(name)) for name in told["bytes"]} == told["bytes"]
    # A second time nothing is built: the entries are those that were there.
    times = {path: path.stat().st_ctime_ns for path in (tmp_path / "engines").glob("*.json")}
    again = run("build", bundle.path, "--target", "tensorrt-rtx")
    assert "building takes about 0.5 GB" in again.out
    assert {path: path.stat().st_ctime_ns for path in times} == times
    assert before == {path.name: path.read_bytes() for path in bundle.path.iterdir()}


def test_targets_that_cannot_be_built_are_refused(
    bundle: Bundle, tiny_bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "give one of auto, tensorrt-rtx" in run("build", bundle.path, "--target", "x").error
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    missing = run("build", bundle.path, "--target", "tensorrt-11").error
    assert missing.startswith("this machine has no tensorrt 11.0 or newer")
    assert "needs no engines" in run("build", tiny_bundle_path).error


def test_a_board_that_is_too_small_is_told_so(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IDETEX_CACHE", str(tmp_path))

    def scarce() -> int:
        return 200_000_000

    monkeypatch.setattr(memory, "available_memory", scarce)
    refused = run("build", bundle.path).error
    assert refused.startswith("building vision.engine takes about 0.5 GB of memory, and 0.2 GB are")
    assert [*(tmp_path / "engines").glob("*.engine")] == []


def test_limits_follow_what_is_free(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe(bundle).engines["decoder"]
    needed = building_takes(bundle, recipe)
    free: list[int | None] = [needed + 3 * 2**30, needed + 1, None]
    monkeypatch.setattr(memory, "available_memory", lambda: free[0])
    wanted = [Limits(3 * 2**30), Limits(2**28), Limits(None)]
    for limits in wanted:
        assert limits_for(bundle, recipe, None) == limits
        assert limits_for(bundle, recipe, 2**33) == limits
        # A card of a kilobyte does not hold the weights: they are streamed.
        assert limits_for(bundle, recipe, 2**10) == replace(limits, streams=True)
        free.pop(0)


def test_memory_is_read_as_linux_tells_it(tmp_path: Path) -> None:
    told = tmp_path / "meminfo"
    told.write_text("MemTotal: 8000000 kB\nMemAvailable:   5000 kB\nSwapFree:   700 kB\n")
    assert available_memory(told) == 5700 * 1024
    assert available_memory(tmp_path / "none") is None
    if Path("/proc/meminfo").exists():
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        assert 0 < (available_memory() or 0) < 4 * pages


def test_a_killed_build_takes_its_builder_along(bundle: Bundle, tmp_path: Path) -> None:
    environment = {**os.environ, "IDETEX_CACHE": str(tmp_path)}
    command = [sys.executable, "-m", "idetex_edge", "build", str(bundle.path)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)

    def builders() -> list[int]:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        return [int(pid) for pid in children.read_text().split()] if children.exists() else []

    while not builders():
        assert process.poll() is None
        time.sleep(0.01)
    (builder,) = builders()
    process.send_signal(signal.SIGKILL)
    process.wait()
    while Path(f"/proc/{builder}").exists():
        time.sleep(0.01)
    assert [*(tmp_path / "engines").glob("*.engine")] == []


def test_a_builder_that_dies_is_told_in_one_line(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IDETEX_CACHE", str(tmp_path))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert "the builder of vision.onnx ended with status 1" in run("build", bundle.path).error
    killed = tmp_path / "killed"
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(killed))
    assert "as the system does when memory runs out" in run("build", bundle.path).error
    assert [*(tmp_path / "engines").glob("*.engine")] == []


def test_the_builder_that_has_built_is_taken_again(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IDETEX_CACHE", str(tmp_path))

    class Tensorrt:
        __name__, __version__ = "tensorrt", "11.1.0"

    other = Tensorrt()
    monkeypatch.setitem(sys.modules, "tensorrt", other)
    assert builders_here("tensorrt-10.3") == [other, builder_of("tensorrt-rtx")]
    recipe = load_recipe(bundle)
    assert engines_here(bundle, recipe, "card", 2**34).builder is builder_of("tensorrt-rtx")

    def touch(
        trt: object, bundle: Bundle, recipe: object, limits: Limits, into: Path, _: object
    ) -> None:
        into.write_bytes(b"engine")

    monkeypatch.setattr("idetex_edge.tensorrt.engines.build_apart", touch)
    theirs = Engines(bundle, recipe, other, "card", 2**34)
    for name in recipe.engines:
        theirs.read(name)
    assert engines_here(bundle, recipe, "card", 2**34).builder is other
    # Engines of TensorRT proper are of one card alone.
    assert engines_here(bundle, recipe, "another", 2**34).builder is not other


def test_shares_of_phases_within_phases() -> None:
    phases = Phases()
    phases.begin("all", 4)
    phases.step("all", 0)
    assert phases.share == 0.25
    phases.begin("part", 2)
    phases.step("part", 0)
    assert phases.share == 0.25 + 0.125
    phases.end("part")
    phases.step("all", 3)
    assert phases.share == 1.0
    phases.step("unknown", 3)
    phases.end("all")
    assert phases.share == 0.0
