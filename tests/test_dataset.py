"""Many machines, in small: Ray on this one, with two workers of which one is killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import run
from noise import save_noise
from prompted import with_prompts

from idetex_edge import OutputError
from idetex_edge.batch import assess_dataset

pytest.importorskip("ray", reason="Ray is not installed")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="kill -9")


@pytest.fixture(scope="module")
def bundle(tiny_bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_prompts(tiny_bundle_path, tmp_path_factory.mktemp("ray") / "nano", "nano", 400)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    save_noise(folder, 48)
    (folder / "07b.jpg").write_text("not a picture")
    return folder


def workers() -> list[int]:
    """The process ids of our Ray workers that assess."""
    found: list[int] = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if " ".join(process.cmdline()).startswith("ray::MapWorker(MapBatches(AssessShards"):
                found.append(process.pid)
    return found


def joined(shards: Path) -> Any:  # noqa: ANN401 - pyarrow has no types
    return pa.concat_tables([pq.read_table(path) for path in sorted(shards.glob("*.parquet"))])


@pytest.fixture(autouse=True)
def quiet_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")


def test_a_worker_dies_and_the_table_is_the_plain_one(
    bundle: Path, folder: Path, tmp_path: Path
) -> None:
    plain = tmp_path / "plain.parquet"
    assert run("assess", folder, "--output", plain, bundle=bundle).code == 1
    shards = tmp_path / "shards"
    killed: list[int] = []

    def kill_one() -> None:
        """When a shard is there and both workers are, one of them is killed."""
        while not killed:
            ours = workers()
            if len(ours) == 2 and list(shards.glob("*.parquet")):
                os.kill(ours[0], signal.SIGKILL)
                killed.append(len(list(shards.glob("*.parquet"))))
            time.sleep(0.005)

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    failed = assess_dataset(str(folder), shards, bundle=bundle, workers=2, shard=3)
    assert killed, "no worker was killed"
    assert killed[0] < 17, "the worker was killed when all was done"
    assert failed == 1
    assert joined(shards).equals(pq.read_table(plain))
    assert sorted(path.name for path in shards.iterdir())[-1] == "plan.json"

    # Started again, it does what is missing and nothing else.
    times = {path: path.stat().st_mtime_ns for path in shards.glob("*.parquet")}
    gone = shards / "part-00000004.parquet"
    gone.unlink()
    ran = run("batch", folder, shards, "--workers", "1", "--shard", "3", bundle=bundle)
    assert ran.code == 1
    assert "1 pictures failed" in ran.out
    assert joined(shards).equals(pq.read_table(plain))
    after = {path: path.stat().st_mtime_ns for path in shards.glob("*.parquet")}
    assert [path for path in times if after[path] != times[path]] == [gone]
    with pytest.raises(OutputError, match="another folder"):
        assess_dataset(str(folder), shards, bundle=bundle, shard=4)
