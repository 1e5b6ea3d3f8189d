"""Whatever is sent, the server answers, never with a 500, and goes on answering."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import httpx
import pytest
from serving import serving

from benchmarks.serving_fuzz import fuzz
from idetex_edge.serve.guarded import GuardedAssessor
from idetex_edge.serve.settings import Settings


@pytest.fixture(scope="module")
def server(served_bundle: Path) -> Generator[str]:
    assessors = [GuardedAssessor(served_bundle, threads=1, max_pixels=10**6) for _ in range(2)]
    with serving(assessors, Settings(deadline=20)) as address:
        yield address


def test_two_hundred_wrong_requests(server: str) -> None:
    statuses = fuzz(server, 200, seed=1)
    assert set(statuses) <= {0, 200, 400, 404, 405, 408, 413, 415, 422, 499}
    assert statuses[200] >= 5, "some requests must get through"
    assert httpx.get(f"{server}/readyz").status_code == 200
