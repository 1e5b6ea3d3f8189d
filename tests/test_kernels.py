from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="Triton has no build for this platform")

INTERPRETED = Path(__file__).with_name("interpreted")


def test_kernels_equal_their_references_in_the_interpreter() -> None:
    """The tests in `interpreted/`, in a process where Triton was told to interpret."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "--confcutdir", str(INTERPRETED), str(INTERPRETED)],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        cwd=INTERPRETED.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


def test_kernels_know_neither_half_of_the_project() -> None:
    code = (
        "import sys, kernels.configurations;"
        "sys.exit(any(name.split('.')[0] in ('idetex_edge', 'export') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to measure on")
def test_the_benchmark_says_in_one_line_that_there_is_no_gpu() -> None:
    script = Path(__file__).parents[1] / "benchmarks" / "kernels.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr == "no NVIDIA GPU here: nothing was measured\n"
