"""schemathesis over the OpenAPI: the server does what its description says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from serving import serving

from idetex_edge.serve.guarded import GuardedAssessor
from idetex_edge.serve.settings import Settings

# A schema cannot say which strings are pictures, so 422 is a fair answer to one that fits it.
CONFIG = """
[checks]
positive_data_acceptance.expected-statuses = ["2xx", "401", "403", "404", "415", "422"]
negative_data_rejection.expected-statuses = ["400", "401", "403", "404", "415", "422"]
"""


@pytest.fixture(scope="module")
def server(served_bundle: Path) -> Generator[str]:
    with serving([GuardedAssessor(served_bundle, threads=1)], Settings(deadline=20)) as address:
        yield address


def test_schemathesis_finds_nothing(server: str, tmp_path: Path) -> None:
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG)
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run"]
    options = ["--max-examples", "10", "--seed", "1", "--generation-database", "none"]
    ran = subprocess.run(
        [*command, f"{server}/openapi.json", *options, "--no-color"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
