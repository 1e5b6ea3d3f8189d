"""A server in a process of its own, for measurements."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager


@contextmanager
def served(options: Sequence[str] = ()) -> Generator[str]:
    """Run `idetex-edge serve` on a free port until the block ends; gives its address."""
    command = [sys.executable, "-m", "idetex_edge", "serve", "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()
