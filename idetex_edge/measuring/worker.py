"""A contender's side: a process that loads one thing and answers scenarios on demand.

    python -m idetex_edge.measuring.worker '{"bundle": ..., "engine": ..., "threads": ...}'

Reads one JSON object a line from standard input, a scenario and a picture's path, and writes one
line for each: figures by metric (see `UNITS`), tokens of each answer, peak memory in bytes.
Whatever libraries print goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from idetex_edge.asking import Asker
from idetex_edge.bundle import open_bundle
from idetex_edge.decoding import Reply, finish
from idetex_edge.engines import load_engine
from idetex_edge.image import MAX_PIXELS
from idetex_edge.measuring.scenarios import Scenario
from idetex_edge.requests import Request
from idetex_edge.sharing import Prefilled


@dataclass(frozen=True, slots=True)
class Measured:
    """Figures of one run by metric, and how many tokens each of the answers had."""

    figures: dict[str, float]
    tokens: list[int]


class Contender(Protocol):
    """What answers scenarios."""

    def run(self, scenario: Scenario, picture: Path) -> Measured:
        """Answer a scenario's requests about a picture that was not seen before."""
        ...

    def peak_memory(self) -> int:
        """Bytes of memory that it took at its peak."""
        ...


class Ours:
    """One of this package's engines."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    @classmethod
    def load(cls, bundle: str, engine: str, threads: int) -> Ours:
        """Open a bundle on an engine; raises as `Assessor` does."""
        opened = open_bundle(bundle)
        return cls(Asker(opened, load_engine(engine, opened, threads), MAX_PIXELS))

    def run(self, scenario: Scenario, picture: Path) -> Measured:
        """See `Contender.run`."""
        started = time.perf_counter()
        seen = self._asker.see(picture)
        encoded = time.perf_counter()
        prompts = self._asker.prefill(seen, scenario.requests)
        prefilled = time.perf_counter()
        pairs = zip(prompts, scenario.requests, strict=True)
        replies = [
            self._reply(prompt, request, scenario.forced)
            for prompt, request in pairs
            if request.limit
        ]
        finish(self._asker.engine, replies, self._asker.drafter)
        ended = time.perf_counter()
        figures = {
            "vision": 1000 * (encoded - started),
            "first token": 1000 * (prefilled - started),
            "end to end": 1000 * (ended - started),
        }
        if len(prompts) == 1:
            figures["prefill"] = prompts[0].length / (prefilled - encoded)
        written = sum(len(reply.tokens) for reply in replies)
        # An answer's first token is known when its prompt is prefilled.
        if written > len(replies):
            figures["decode"] = (written - len(replies)) / (ended - prefilled)
        return Measured(figures, [len(reply.tokens) for reply in replies])

    def peak_memory(self) -> int:
        """See `Contender.peak_memory`."""
        return peak_memory(os.getpid())

    def _reply(self, prompt: Prefilled, request: Request, forced: bool) -> Reply:
        reply = self._asker.reply(prompt, request)
        if forced:
            reply.stop, reply.constraint = frozenset(), None
        return reply


def serve(load: Callable[[], Contender]) -> None:
    """Load a contender and answer standard input's lines until it ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    contender = load()
    for line in sys.stdin:
        asked = json.loads(line)
        scenario = Scenario.from_dict(asked["scenario"])
        measured = contender.run(scenario, Path(asked["picture"]))
        answer = {**asdict(measured), "peak_memory": contender.peak_memory()}
        answers.write(json.dumps(answer) + "\n")


def peak_memory(process: int) -> int:
    """Bytes of memory that a process took at its peak; our own where the system is not Linux."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        import resource

        largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return largest if sys.platform == "darwin" else largest * 1024
    # Not ru_maxrss: it begins with what the parent process held when it started this one.
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    serve(lambda: Ours.load(**settings))
