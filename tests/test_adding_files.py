"""Files put into a bundle by `add_files`: whatever moment a run is killed at, it still opens."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from idetex_edge.bundle import add_files, open_bundle, part_of
from idetex_edge.errors import OutputError

KILLED = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
from idetex_edge.bundle import add_files, open_bundle, part_of

folder, moves = Path(sys.argv[1]), int(sys.argv[2])
move = Path.replace

def move_and_die(self, target):
    global moves
    if moves == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    moves -= 1
    return move(self, target)

Path.replace = move_and_die
bundle = open_bundle(folder)
engines = {"vision": "vision.engine"}
whole = replace(bundle, manifest=replace(bundle.manifest, engines=engines))
part_of(folder / "long.bin").write_bytes(b"newer" * 100)
files = {"vision.engine": b"newer", "long.bin": part_of(folder / "long.bin"), "first.bin": b"new"}
add_files(whole, files)
"""
"""Replaces two files and adds one, and is killed before a given move of a file to its place."""

MOVES = 5
"""Three files, and the manifest before and behind them."""


@pytest.fixture
def folder(tiny_bundle_path: Path, tmp_path: Path) -> Path:
    """A bundle with an engine and another file."""
    copy = Path(shutil.copytree(tiny_bundle_path, tmp_path / "copy"))
    add_files(open_bundle(copy), {"vision.engine": b"older", "long.bin": b"older"})
    return copy


@pytest.mark.parametrize("moves", range(MOVES + 1))
def test_a_bundle_opens_whenever_the_run_was_killed(folder: Path, moves: int) -> None:
    before = open_bundle(folder).manifest.files
    command = [sys.executable, "-c", KILLED, str(folder)]
    done = subprocess.run([*command, str(moves)], check=False)
    assert done.returncode == (0 if moves == MOVES else -signal.SIGKILL)
    bundle = open_bundle(folder)
    for name in set(before) - {"vision.engine", "long.bin"}:
        assert bundle.manifest.files[name] == before[name]
    assert set(bundle.manifest.engines.values()) <= set(bundle.manifest.files)
    # The same run makes it whole, whatever the killed one left behind.
    subprocess.run([*command, "-1"], check=True)
    whole = open_bundle(folder)
    assert whole.manifest.engines == {"vision": "vision.engine"}
    assert whole.file("vision.engine").read_bytes() == b"newer"
    assert whole.file("long.bin").read_bytes() == b"newer" * 100
    assert whole.file("first.bin").read_bytes() == b"new"
    assert {path.name for path in folder.iterdir()} == {*whole.manifest.files, "manifest.json"}


def test_nothing_is_let_go_of_before_all_is_written(folder: Path) -> None:
    """A file that is not there, as on a disk that is full, leaves the bundle as it was."""
    bundle = open_bundle(folder)
    with pytest.raises(OutputError, match=r"long\.bin"):
        add_files(bundle, {"vision.engine": b"newer", "long.bin": part_of(folder / "long.bin")})
    assert open_bundle(folder).manifest == bundle.manifest
    assert bundle.file("vision.engine").read_bytes() == b"older"
    assert {path.name for path in folder.iterdir()} == {*bundle.manifest.files, "manifest.json"}
