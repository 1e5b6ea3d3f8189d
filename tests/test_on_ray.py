"""The API behind Ray Serve, with two replicas."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import httpx
import pytest

from idetex_edge import Assessor
from idetex_edge.serve.settings import Settings

ray = pytest.importorskip("ray", reason="Ray is not installed")


def test_replicas_answer_as_the_assessor_does(
    served_bundle: Path, served_photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray import serve

    from idetex_edge.serve.on_ray import ray_app

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(ray_app(Settings(), replicas=2, bundle=str(served_bundle)))
        url = f"http://127.0.0.1:{port}"
        expected = json.loads(json.dumps(Assessor(served_bundle).score(served_photo).to_dict()))
        for _ in range(4):
            answer = httpx.post(
                f"{url}/v1/score", files=[("images", ("x", served_photo))], timeout=60
            )
            assert answer.json()["results"] == [expected]
        refused = httpx.post(f"{url}/v1/score", files=[("images", ("x", b"x"))], timeout=60)
        assert refused.status_code == 422
        said = httpx.post(f"{url}/v1/describe", files=[("images", ("x", served_photo))], timeout=60)
        assert said.text.count("event: done") == 1
        assert httpx.get(f"{url}/healthz", headers={"Host": "example.org"}).status_code == 403
    finally:
        serve.shutdown()
        ray.shutdown()
