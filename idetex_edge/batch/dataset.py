"""Assess many pictures on many machines with Ray, into shards of Parquet.

A shard is a run of the list of pictures and a file. Workers write it when it is whole and under its
final name only then, so whatever dies, a shard is there or it is not: Ray gives the shards of a
worker that died to another one, and a run that is started again does only those that are missing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from idetex_edge.assessor import NANO, Assessor
from idetex_edge.batch.folder import Advance
from idetex_edge.batch.rows import made_with, row_of
from idetex_edge.batch.tables import require_parquet, write_table
from idetex_edge.engines import AUTO
from idetex_edge.errors import OutputError, RequestError
from idetex_edge.evaluation.files import write_json
from idetex_edge.image import MAX_PIXELS
from idetex_edge.pictures import Found, find_pictures

SHARD: Final = 64
"""Pictures in a shard unless told otherwise: what at most is done again when a worker dies."""

LOCAL: Final = "local"
"""The address that starts Ray on this machine."""

PLAN: Final = "plan.json"
"""The file that says what a folder of shards is made of."""


class AssessShards:
    """A worker: one Assessor, asked for a shard at a time."""

    def __init__(self, output: Path, facts: Mapping[str, str], options: Mapping[str, Any]) -> None:
        """See `assess_dataset`."""
        self._output, self._facts = output, facts
        self._assessor = Assessor.from_pretrained(**options)
        if (mine := made_with(self._assessor)) != facts:
            raise OutputError(f"a worker has {mine}, not {facts}; install the same on all machines")

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Write the shards of a batch; returns their numbers."""
        for number, pictures in zip(batch["shard"], batch["pictures"], strict=True):
            rows = (
                row_of(self._assessor, Found(path, Path(path), problem), place)
                for path, place, problem in json.loads(pictures)
            )
            write_table(shard_path(self._output, int(number)), rows, self._facts)
        return {"shard": batch["shard"]}


def shard_path(output: Path, number: int) -> Path:
    """The file of a shard; files sort as shards do."""
    return output / f"part-{number:08d}.parquet"


def assess_dataset(
    pictures: str | Iterable[str],
    output: str | os.PathLike[str],
    *,
    bundle: str | os.PathLike[str] | None = None,
    engine: str = AUTO,
    threads: int = 1,
    max_pixels: int = MAX_PIXELS,
    workers: int | None = None,
    shard: int = SHARD,
    ray_address: str = LOCAL,
    advance: Advance = lambda stage, done, total: None,
) -> int:
    """Assess pictures into a folder of Parquet shards; returns how many pictures failed.

    pictures: files, folders and patterns, which every machine must be able to read under the same
    path. output: a folder that all can write to. threads: CPU threads of a worker, which has one
    Assessor. workers: how many; None for as many as Ray has CPUs for. ray_address: of a running
    cluster, or "local" to start Ray on this machine for as long as this takes.

    A picture that cannot be assessed is a row with an `error`. A worker that dies is replaced, and
    its shard done again. Called again after it was stopped, it does the shards that are missing.
    Raises RequestError without ray or pictures, OutputError when the folder holds a run over other
    pictures or with another bundle or engine.
    """
    folder = Path(output).absolute()
    found = list(
        dict.fromkeys(find_pictures([pictures] if isinstance(pictures, str) else [*pictures]))
    )
    options: dict[str, Any] = {
        "name": str(NANO if bundle is None else bundle),
        "engine": engine,
        "threads": threads,
        "max_pixels": max_pixels,
    }
    facts = made_with(Assessor.from_pretrained(**options))
    require_parquet()
    _begin(folder, found, shard, facts)
    shards = range(-(-len(found) // shard))
    missing = [number for number in shards if not shard_path(folder, number).exists()]
    advance("shards", len(shards) - len(missing), len(shards))
    if missing:
        tasks = [
            {
                "shard": number,
                "pictures": json.dumps(
                    [
                        (picture.path, os.path.abspath(picture.path), picture.problem)  # noqa: PTH100
                        for picture in found[number * shard : (number + 1) * shard]
                    ]
                ),
            }
            for number in missing
        ]
        worker = {"output": folder, "facts": facts, "options": options}
        done = len(shards) - len(missing)
        with _ray(ray_address) as cpus:
            count = min(workers or max(1, cpus // threads), len(missing))
            for _ in _written(tasks, worker, count, threads):
                done += 1
                advance("shards", done, len(shards))
    return sum(_failures(shard_path(folder, number)) for number in shards)


def _begin(folder: Path, found: Sequence[Found], shard: int, facts: Mapping[str, str]) -> None:
    paths = "\0".join(picture.path for picture in found).encode("utf-8", "surrogateescape")
    plan = {
        "pictures": len(found),
        "of": hashlib.sha256(paths).hexdigest(),
        "shard": shard,
        "made_with": dict(facts),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        begun = json.loads((folder / PLAN).read_text()) if (folder / PLAN).exists() else None
    except (OSError, ValueError) as error:
        raise OutputError(f"cannot use {folder}: {error}; choose another folder") from None
    if begun not in (None, plan):
        raise OutputError(
            f"{folder} holds a run over other pictures, shards, bundle or engine; "
            "give another folder, or delete it"
        )
    write_json(folder / PLAN, plan)


@contextmanager
def _ray(address: str) -> Generator[int]:
    """Be connected to Ray; gives its number of CPUs."""
    try:
        import ray
    except ModuleNotFoundError:
        raise RequestError("this needs ray; pip install 'idetex-edge[ray]'") from None
    ours = not ray.is_initialized()
    if ours:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            include_dashboard=False if address == LOCAL else None,
        )
    try:
        yield int(ray.cluster_resources().get("CPU", 1))
    finally:
        if ours:
            ray.shutdown()


def _written(
    tasks: list[dict[str, Any]], worker: dict[str, Any], workers: int, threads: int
) -> Iterator[int]:
    """Have shards written by so many workers; gives each one's number when it is."""
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # A shard is a task of its own, or one dead worker would cost many.
    shards = ray.data.from_items(tasks, override_num_blocks=len(tasks))
    written = shards.map_batches(
        AssessShards,
        batch_size=1,
        fn_constructor_kwargs=worker,
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=threads,
    )
    for row in written.iter_rows():
        yield int(row["shard"])


def _failures(shard: Path) -> int:
    import pyarrow.parquet as pq

    errors = pq.read_table(shard, columns=["error"])["error"]
    return len(errors) - errors.null_count
