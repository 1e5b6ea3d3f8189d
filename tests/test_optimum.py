from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def cli(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run optimum's own command in a process of its own."""
    code = "from optimum.commands.optimum_cli import main; main()"
    words = [sys.executable, "-c", code, "export", "idetex", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_the_same_command_under_optimum_cli(brief_checkpoint: Path, tmp_path: Path) -> None:
    options = ("--model", brief_checkpoint, "--output", tmp_path / "out", "--precision", "int8")
    ran = cli(*options, "--dry-run")
    assert ran.returncode == 0, ran.stderr
    assert "for onnx-cpu, int8" in ran.stdout
    assert "MB on disk" in ran.stdout
    wrong = cli(*options, "--target", "toaster")
    assert wrong.returncode == 1
    assert wrong.stderr.splitlines()[-1].startswith("error: unknown target 'toaster'")
