"""Many clients at once: the server keeps up with the model and holds its limits, or does not.

    python benchmarks/serving.py [--clients 16] [--seconds 60] [--photos DIR] [--json OUT]

First one process assesses the pictures in a loop, on all threads: that is what the machine can do.
Then so many clients send the same pictures to `idetex-edge serve`, each its next one when it has
its answer, and the loop is run once more, since a machine's speed drifts. Printed are pictures a
second, the share of the loop's, latencies, the server's memory while it served, and four verdicts:
no 5xx but 503, memory flat after the first third, 95% of answers within queue depth x service time
(clients x seconds that a worker takes for a picture, by the server's metrics), and at least 90% of
the loop. The exit code is 1 when one of them does not hold.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from io import BytesIO
from itertools import count
from pathlib import Path
from statistics import mean, median, quantiles
from typing import Annotated, Final

import httpx
import typer
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table

from benchmarks.serving_process import served
from idetex_edge import Assessor
from idetex_edge.cli.script import run
from idetex_edge.pictures import find_pictures
from idetex_edge.serve.settings import WORKERS

LEAST_SHARE: Final = 0.9
MOST_GROWTH: Final = 1.05
"""Memory at the end over memory after a third of the time that still counts as flat."""


@dataclass(slots=True)
class Load:
    """What the clients saw, and what the server told of itself each second."""

    statuses: Counter[int] = field(default_factory=Counter[int])
    seconds: list[float] = field(default_factory=list[float])
    memory: list[float] = field(default_factory=list[float])
    service: float = 0.0
    lasted: float = 0.0
    cpu: float = 0.0


def pictures_of(folder: Path | None) -> list[bytes]:
    """The files of a folder, or eight pictures of scikit-image as JPEG."""
    if folder is not None:
        return [Path(found.path).read_bytes() for found in find_pictures([str(folder)])]
    from skimage import data

    files: list[bytes] = []
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        picture = Image.fromarray(getattr(data, name)())
        for turned in (picture, picture.transpose(Image.Transpose.ROTATE_180)):
            file = BytesIO()
            turned.save(file, "JPEG", quality=90)
            files.append(file.getvalue())
    return files


def loop_rate(pictures: Sequence[bytes], seconds: float) -> tuple[float, float]:
    """Pictures a second of one Assessor in a loop, on all threads, and CPU seconds a picture."""
    assessor = Assessor()
    assessor.assess(pictures[0])
    started, worked, done = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - started < seconds:
        assessor.assess(pictures[done % len(pictures)])
        done += 1
    return done / (time.perf_counter() - started), (time.process_time() - worked) / done


def metrics(server: str) -> dict[str, float]:
    """The server's own figures, by name, summed over labels."""
    found: defaultdict[str, float] = defaultdict(float)
    for family in text_string_to_metric_families(httpx.get(f"{server}/metrics", timeout=30).text):
        for sample in family.samples:
            found[sample.name] += sample.value
    return found


def press(server: str, pictures: Sequence[bytes], clients: int, seconds: float) -> Load:
    """Send pictures from so many clients for so long."""
    load, numbers, lock = Load(), count(), threading.Lock()
    # Every worker sees every size of picture before anything counts.
    with ThreadPoolExecutor(clients) as pool, httpx.Client(timeout=120) as session:
        list(pool.map(partial(_send, session, server), [*pictures] * 4))
    begins = time.perf_counter()
    ends = begins + seconds

    def client() -> None:
        with httpx.Client(timeout=120) as session:
            while time.perf_counter() < ends:
                began = time.perf_counter()
                status = _send(session, server, pictures[next(numbers) % len(pictures)])
                took = time.perf_counter() - began
                with lock:
                    load.statuses[status] += 1
                    load.seconds.append(took)

    before = metrics(server)
    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        load.memory.append(metrics(server)["process_resident_memory_bytes"] / 1e6)
        time.sleep(1)
    load.lasted = time.perf_counter() - begins
    after = metrics(server)
    pictures_seen = after["idetex_picture_seconds_count"] - before["idetex_picture_seconds_count"]
    worked = after["idetex_picture_seconds_sum"] - before["idetex_picture_seconds_sum"]
    load.service = worked / pictures_seen
    cpu = "process_cpu_seconds_total"
    load.cpu = (after[cpu] - before[cpu]) / pictures_seen
    return load


def _send(session: httpx.Client, server: str, picture: bytes) -> int:
    files = [("images", ("picture", picture))]
    return session.post(f"{server}/v1/assess", files=files).status_code


@dataclass(frozen=True, slots=True)
class Verdict:
    """The figures, and whether they keep the limits."""

    clients: int
    loop_pictures_per_second: list[float]
    pictures_per_second: float
    share_of_loop: float
    statuses: dict[int, int]
    median_seconds: float
    p95_seconds: float
    p95_allowed: float
    service_seconds: float
    loop_cpu_seconds: list[float]
    server_cpu_seconds: float
    memory_mb: list[float]
    no_5xx: bool
    memory_flat: bool
    p95_kept: bool
    throughput_kept: bool


def judge(load: Load, loops: list[tuple[float, float]], clients: int) -> Verdict:
    """Hold what was seen against the limits."""
    rate = load.statuses[200] / load.lasted
    warm = load.memory[len(load.memory) // 3 :]
    p95 = quantiles(load.seconds, n=20)[-1]
    allowed = clients * load.service
    rates = [loop[0] for loop in loops]
    share = rate / mean(rates)
    return Verdict(
        clients=clients,
        loop_pictures_per_second=rates,
        pictures_per_second=rate,
        share_of_loop=share,
        statuses=dict(load.statuses),
        median_seconds=median(load.seconds),
        p95_seconds=p95,
        p95_allowed=allowed,
        service_seconds=load.service,
        loop_cpu_seconds=[loop[1] for loop in loops],
        server_cpu_seconds=load.cpu,
        memory_mb=[warm[0], max(warm), warm[-1]],
        no_5xx=all(status < 500 or status == 503 for status in load.statuses),
        memory_flat=warm[-1] <= MOST_GROWTH * warm[0],
        p95_kept=p95 <= allowed,
        throughput_kept=share >= LEAST_SHARE,
    )


def main(
    clients: Annotated[int, typer.Option(min=1)] = 16,
    seconds: Annotated[float, typer.Option(min=3)] = 60,
    workers: Annotated[int, typer.Option(min=1)] = WORKERS,
    photos: Annotated[Path | None, typer.Option(help="Pictures to send.")] = None,
    output: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
) -> None:
    """Run the load and print what came of it."""
    pictures = pictures_of(photos)
    loops = [loop_rate(pictures, seconds / 4)]
    with served(("--workers", str(workers))) as server:
        load = press(server, pictures, clients, seconds)
    loops.append(loop_rate(pictures, seconds / 4))
    verdict = asdict(judge(load, loops, clients))
    table = Table(show_header=False, box=None)
    for name, figure in verdict.items():
        table.add_row(
            name.replace("_", " "), f"{figure:.3f}" if isinstance(figure, float) else str(figure)
        )
    Console().print(table)
    if output is not None:
        output.write_text(json.dumps(verdict, indent=2) + "\n", encoding="utf-8")
    kept = ("no_5xx", "memory_flat", "p95_kept", "throughput_kept")
    sys.exit(int(not all(verdict[name] for name in kept)))


if __name__ == "__main__":
    run(main)
