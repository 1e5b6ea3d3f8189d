"""The measuring side of contenders: their processes, started, asked in turn, and ended."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryFile

from idetex_edge.errors import EngineError
from idetex_edge.measuring.scenarios import Scenario


@dataclass(frozen=True, slots=True)
class Contender:
    """What to measure: its name, the model's, the command of its process, whether it is a peer."""

    name: str
    model: str
    command: tuple[str, ...]
    peer: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one run: figures by metric, tokens of each answer, bytes of memory so far."""

    figures: dict[str, float]
    tokens: list[int]
    peak_memory: int


def our_contender(bundle: Path, model: str, engine: str, threads: int) -> Contender:
    """One of this package's engines on a bundle."""
    settings = json.dumps({"bundle": str(bundle), "engine": engine, "threads": threads})
    command = (sys.executable, "-m", "idetex_edge.measuring.worker", settings)
    return Contender(engine, model, command)


class Running:
    """A contender's process."""

    def __init__(self, contender: Contender) -> None:
        """Start it; it loads while it is asked for the first time."""
        self.contender = contender
        self._errors = TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            contender.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            encoding="utf-8",
        )

    def run(self, scenario: Scenario, picture: Path) -> Answer:
        """Have a scenario answered; raises EngineError with the process's last words if it dies."""
        asked = json.dumps({"scenario": asdict(scenario), "picture": str(picture)})
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(asked + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise EngineError(f"{self.contender.name} failed: {self._last_words()}")
        return Answer(**json.loads(answer))

    def close(self) -> None:
        """End the process and wait for it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def _last_words(self) -> str:
        self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


@contextmanager
def running(contenders: Sequence[Contender]) -> Generator[list[Running]]:
    """Start contenders, and end them all whatever happens."""
    started: list[Running] = []
    try:
        for contender in contenders:
            started.append(Running(contender))
        yield started
    finally:
        for process in started:
            process.close()


def load_time(contender: Contender, scenario: Scenario, picture: Path) -> float:
    """Milliseconds from starting a contender until it has answered a scenario."""
    started = time.perf_counter()
    with running([contender]) as (process,):
        process.run(scenario, picture)
        return 1000 * (time.perf_counter() - started)
