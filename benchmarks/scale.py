"""What a million pictures cost, and what they wait for: stages measured, a cluster simulated.

    python benchmarks/scale.py [--photos DIR] [--pictures 16] [--json OUT]

Measured, on one thread, in CPU time, so that other work on the machine counts little: decoding the
file, encoding, and the rest of an assessment, and the file's size. Simulated, from these figures:
workers that fetch from an object store, decode and assess, over numbers of workers, with and
without fetching ahead. Fetches take a latency with a heavy tail (log-normal) and share the store's
bandwidth; once in
a thousand pictures a worker dies and does its shard again from the start.
"""

from __future__ import annotations

import heapq
import json
import math
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from statistics import mean
from typing import Annotated, Final

import typer
from PIL import Image
from rich.console import Console
from rich.table import Table

from idetex_edge import Assessor
from idetex_edge.batch.dataset import SHARD
from idetex_edge.cli.script import run
from idetex_edge.image import load_image
from idetex_edge.pictures import find_pictures

WORKERS: Final = (1, 10, 100, 1000)
PICTURES: Final = 256_000
"""How many a simulated cluster assesses."""

COUNTS: Final = {"a million": 10**6, "a billion": 10**9}


@dataclass(frozen=True, slots=True)
class Stages:
    """CPU seconds of one picture on one thread, and bytes of its file."""

    decode: float
    encode: float
    answer: float
    size: float

    @property
    def worked(self) -> float:
        """CPU seconds in all."""
        return self.decode + self.encode + self.answer


@dataclass(frozen=True, slots=True)
class Store:
    """An object store.

    latency: median seconds to a file's first byte. tail: sigma of its log-normal; at 1, one fetch
    in a hundred takes ten times the median. bandwidth: bytes a second, of all workers together.
    """

    latency: float = 0.03
    tail: float = 1.0
    bandwidth: float = 5e9


@dataclass(frozen=True, slots=True)
class Run:
    """How a simulated cluster did: pictures a second, and how much of that its cores could do."""

    workers: int
    ahead: int
    shard: int
    rate: float
    share_of_cores: float
    store_share: float


def measure(photos: Sequence[bytes]) -> Stages:
    """Take the stages' CPU time on these files, each seen once before."""
    assessor = Assessor(threads=1)
    decode = encode = answer = 0.0
    for measured in (False, True):
        for photo in photos:
            began = time.process_time()
            picture = load_image(photo)
            decoded = time.process_time()
            seen = assessor.encode(picture)
            encoded = time.process_time()
            assessor.assess(seen)
            if measured:
                decode += decoded - began
                encode += encoded - decoded
                answer += time.process_time() - encoded
    count = len(photos)
    return Stages(decode / count, encode / count, answer / count, mean(map(len, photos)))


def simulate(
    stages: Stages,
    store: Store,
    workers: int,
    *,
    ahead: int,
    shards: int,
    shard: int,
    deaths: float = 1e-3,
    seed: int = 0,
) -> Run:
    """Let workers of one core each take shards of so many pictures until there are none.

    ahead: fetches that a worker has under way while it computes; 0 fetches, then computes. deaths:
    chance that a worker dies on a picture; it then does its shard again.
    """
    chance = random.Random(seed)
    store_free = ends = 0.0
    arriving: list[list[float]] = [[] for _ in range(workers)]
    left = [0] * workers
    events = [(0.0, worker) for worker in range(workers)]
    waiting = shards

    def fetch(now: float) -> float:
        """When a file that is asked for now is there; the store's line is shared."""
        nonlocal store_free
        store_free = max(store_free, now) + stages.size / store.bandwidth
        return store_free + store.latency * math.exp(store.tail * chance.gauss(0, 1))

    while events:
        now, worker = heapq.heappop(events)
        if not left[worker]:
            if not waiting:
                continue
            waiting -= 1
            left[worker] = shard
        line = arriving[worker]
        while len(line) < max(1, ahead):
            line.append(fetch(now))
        # With several under way, whichever is there first is taken.
        first = min(line)
        line.remove(first)
        now = max(now, first) + stages.worked
        left[worker] = shard if chance.random() < deaths else left[worker] - 1
        ends = max(ends, now)
        heapq.heappush(events, (now, worker))
    rate = shards * shard / ends
    return Run(
        workers,
        ahead,
        shard,
        rate,
        rate * stages.worked / workers,
        rate * stages.size / store.bandwidth,
    )


def main(
    photos: Annotated[Path | None, typer.Option(help="JPEGs; scikit-image's if not given.")] = None,
    pictures: Annotated[int, typer.Option(min=1, help="How many to measure.")] = 16,
    megapixels: Annotated[
        float | None, typer.Option(help="Resize photographs to this many.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
) -> None:
    """Measure, simulate, and print tables."""
    stages = measure(_files(photos, pictures, megapixels))
    store = Store()
    runs = [
        simulate(stages, store, workers, ahead=ahead, shards=PICTURES // shard, shard=shard)
        for ahead, shard in ((0, SHARD), (4, SHARD), (4, 4 * SHARD), (4, SHARD // 4))
        for workers in WORKERS
    ]
    console = Console()
    milliseconds = {name: 1000 * value for name, value in asdict(stages).items() if name != "size"}
    console.print({"ms": milliseconds, "bytes": stages.size, "a second a core": 1 / stages.worked})
    for words, count in COUNTS.items():
        console.print(
            f"{words}: {count * stages.worked / 3600:,.0f} core hours, "
            f"{count * stages.size / 1e12:,.3f} TB read"
        )
    table = Table(
        "fetches ahead", "shard", "workers", "pictures a second", "of the cores", "of the store"
    )
    for one in runs:
        shares = (f"{one.share_of_cores:.0%}", f"{one.store_share:.1%}")
        table.add_row(str(one.ahead), str(one.shard), str(one.workers), f"{one.rate:,.1f}", *shares)
    console.print(table)
    if output is not None:
        figures = {"stages": asdict(stages), "runs": [asdict(one) for one in runs]}
        output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def _files(folder: Path | None, count: int, megapixels: float | None) -> list[bytes]:
    if folder is None:
        from skimage import data

        names = ("astronaut", "chelsea", "coffee", "rocket")
        images = [Image.fromarray(getattr(data, name)()) for name in names]
    else:
        images = [load_image(found.path) for found in find_pictures([str(folder)])[:count]]
    files: list[bytes] = []
    for image in images[:count]:
        picture = image
        if megapixels is not None:
            scale = (megapixels * 1e6 / (image.width * image.height)) ** 0.5
            size = (round(image.width * scale), round(image.height * scale))
            picture = image.resize(size, Image.Resampling.LANCZOS)
        file = BytesIO()
        picture.save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


if __name__ == "__main__":
    run(main)
