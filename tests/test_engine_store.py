"""Where built engines are kept: by several processes, killed ones and full disks."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from idetex_edge.tensorrt.store import EngineStore


def writing(data: bytes) -> Callable[[Path], object]:
    """Build an engine of these bytes."""
    return lambda into: into.write_bytes(data)


def build_slowly(folder: Path, log: Path) -> None:
    def build(into: Path) -> None:
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        into.write_bytes(b"eng")
        time.sleep(0.5)
        into.write_bytes(b"engine" * 1000)

    assert EngineStore(folder).get("key", build) == b"engine" * 1000


def test_two_processes_build_one_engine_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    log = tmp_path / "log"
    racing = [
        context.Process(target=build_slowly, args=(tmp_path / "store", log)) for _ in range(3)
    ]
    for process in racing:
        process.start()
    for process in racing:
        process.join()
    assert [process.exitcode for process in racing] == [0, 0, 0]
    assert len(log.read_text().splitlines()) == 1


def test_a_killed_build_leaves_nothing_that_is_read(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    log = tmp_path / "log"
    process = context.Process(target=build_slowly, args=(tmp_path / "store", log))
    process.start()
    while not log.exists():
        time.sleep(0.01)
    process.kill()
    process.join()
    assert EngineStore(tmp_path / "store").get("key", writing(b"new")) == b"new"


def test_the_longest_unused_go_when_there_is_no_room(tmp_path: Path) -> None:
    store = EngineStore(tmp_path, limit=250)

    def kept() -> set[str]:
        return {path.stem for path in tmp_path.glob("*.engine")}

    for number, key in enumerate("abc"):
        store.get(key, writing(b"x" * 100))
        os.utime(tmp_path / f"{key}.engine", (number, number))
    assert kept() == {"b", "c"}
    store.get("b", writing(b"?"))
    store.get("d", writing(b"x" * 100))
    assert kept() == {"b", "d"}
    # What a killed process left counts and goes; facts without an engine are in nobody's way.
    (tmp_path / "left.engine").write_bytes(b"x" * 500)
    os.utime(tmp_path / "left.engine", (0, 0))
    (tmp_path / "facts.json").write_text("{}")
    store.get("e", writing(b"x" * 10))
    assert "left" not in kept()


def test_engines_of_one_bundle_do_not_drop_each_other(tmp_path: Path) -> None:
    store = EngineStore(tmp_path, limit=80)
    built: list[str] = []

    def start() -> None:
        for key, size in (("vision", 14), ("decoder", 152)):

            def build(into: Path, key: str = key, size: int = size) -> None:
                built.append(key)
                into.write_bytes(b"x" * size)

            assert len(store.get(key, build)) == size

    for _ in range(3):
        start()
    assert built == ["vision", "decoder"]


def fill(folder: Path, name: str) -> None:
    store = EngineStore(folder, limit=500)
    for number in range(60):
        assert store.get(f"{name}{number}", writing(b"x" * 100)) == b"x" * 100
        for path in folder.glob("*.engine"):
            with suppress(OSError):
                os.utime(path, (number, number))


def test_processes_that_keep_other_engines_do_not_disturb_each_other(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    racing = [context.Process(target=fill, args=(tmp_path, name)) for name in "abc"]
    for process in racing:
        process.start()
    for process in racing:
        process.join()
    assert [process.exitcode for process in racing] == [0, 0, 0]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = EngineStore(tmp_path / "file" / "store")
    with pytest.warns(RuntimeWarning, match="set IDETEX_CACHE"):
        assert store.get("key", writing(b"x")) == b"x"
    assert store.find("key") is None

    def broken(into: Path) -> None:
        raise OSError("the graph is gone")

    with pytest.raises(OSError, match="the graph is gone"):
        EngineStore(tmp_path).get("key", broken)
