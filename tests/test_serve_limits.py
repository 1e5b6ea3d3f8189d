"""The HTTP API's limits, over real sockets: sizes, queues, deadlines, keys, the end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest
from command import run
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from serving import HeldAssessor, as_file, error_of, files, serving

from idetex_edge.serve.guarded import GuardedAssessor
from idetex_edge.serve.settings import Settings


def test_limits_on_size(served_bundle: Path) -> None:
    settings = Settings(max_body=100_000, max_pictures=2)
    with serving([GuardedAssessor(served_bundle, threads=1, max_pixels=1000)], settings) as server:
        answer = httpx.post(f"{server}/v1/score", files=files(b"x" * 100_001))
        assert error_of(answer) == (413, "too_large")
        headers = {"content-type": "application/json"}
        chunks = iter([b"x" * 50_000] * 3)
        answer = httpx.post(f"{server}/v1/score", content=chunks, headers=headers)
        assert error_of(answer) == (413, "too_large")
        answer = httpx.post(f"{server}/v1/score", files=files(b"", b"", b""))
        assert error_of(answer) == (422, "too_many_pictures")
        bomb = as_file(Image.new("L", (4000, 4000)))
        assert len(bomb) < 100_000
        assert error_of(httpx.post(f"{server}/v1/score", files=files(bomb))) == (422, "picture")


def test_queue_and_share_of_one_client(served_bundle: Path, served_photo: bytes) -> None:
    held = HeldAssessor(str(served_bundle))
    with serving([held], Settings(queue=2, per_client=4)) as server:
        answers: list[httpx.Response] = []
        url = f"{server}/v1/score"

        def ask(count: int) -> None:
            answers.append(httpx.post(url, files=files(*[served_photo] * count), timeout=60))

        def metric(name: str) -> float:
            text = httpx.get(f"{server}/metrics").text
            families = text_string_to_metric_families(text)
            return sum(s.value for f in families for s in f.samples if s.name == name)

        threads = [threading.Thread(target=ask, args=(1,))]
        threads[0].start()
        held.begun.wait(30)
        threads.append(threading.Thread(target=ask, args=(2,)))
        threads[1].start()
        while metric("idetex_pictures_waiting") < 2:
            pass
        refused = httpx.post(url, files=files(served_photo))
        assert error_of(refused) == (503, "busy")
        assert refused.headers["retry-after"]
        # Other things are answered meanwhile.
        assert httpx.get(f"{server}/readyz").json() == {"status": "ready"}
        held.let_go.set()
        for thread in threads:
            thread.join()
        assert [answer.status_code for answer in answers] == [200, 200]
        assert metric("idetex_pictures_waiting") == 0
        assert metric("idetex_picture_seconds_count") == 3
    held = HeldAssessor(str(served_bundle))
    with serving([held], Settings(queue=9, per_client=1)) as server:
        thread = threading.Thread(
            target=lambda: httpx.post(f"{server}/v1/score", files=files(served_photo), timeout=60)
        )
        thread.start()
        held.begun.wait(30)
        answer = httpx.post(f"{server}/v1/score", files=files(served_photo))
        assert error_of(answer) == (429, "too_many_requests")
        held.let_go.set()
        thread.join()


@pytest.mark.parametrize("task", ["score", "describe"])
def test_a_deadline_ends_the_work(served_bundle: Path, served_photo: bytes, task: str) -> None:
    held = HeldAssessor(str(served_bundle))
    with serving([held], Settings(deadline=0.5)) as server:
        answer = httpx.post(f"{server}/v1/{task}", files=files(served_photo), timeout=60)
        assert error_of(answer) == (504, "deadline")
        assert held.gave_up.wait(30)
        held.let_go.set()


def test_a_body_that_does_not_come_in_time(served_bundle: Path) -> None:
    with (
        serving([GuardedAssessor(served_bundle, threads=1)], Settings(deadline=0.5)) as server,
        socket.create_connection(("127.0.0.1", int(server.rpartition(":")[2]))) as client,
    ):
        client.sendall(
            b"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n"
            b"Content-Type: application/json\r\n\r\n{"
        )
        assert client.recv(1000).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("task", ["score", "describe"])
def test_a_client_that_leaves_frees_its_work(
    served_bundle: Path, served_photo: bytes, task: str
) -> None:
    held = HeldAssessor(str(served_bundle))
    with serving([held]) as server:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{server}/v1/{task}", files=files(served_photo, served_photo), timeout=1)
        assert held.gave_up.wait(30)
        held.let_go.set()
        assert (
            httpx.post(f"{server}/v1/score", files=files(served_photo), timeout=60).status_code
            == 200
        )


def test_a_key_is_asked_for(served_bundle: Path, served_photo: bytes) -> None:
    with serving(
        [GuardedAssessor(served_bundle, threads=1)], Settings(host="0.0.0.0", api_key="open sesame")
    ) as server:
        for path in ("/v1/models", "/metrics"):
            assert error_of(httpx.get(server + path)) == (401, "key")
            for key in ("open", "open sesame!", "sésame"):
                headers = {b"Authorization": f"Bearer {key}".encode()}
                assert error_of(httpx.get(server + path, headers=headers)) == (401, "key")
            headers = {"Authorization": "Bearer open sesame"}
            assert httpx.get(server + path, headers=headers).status_code == 200
        assert error_of(httpx.post(f"{server}/v1/score", files=files(served_photo))) == (401, "key")
        assert httpx.get(f"{server}/healthz").status_code == 200
        # With a key any name will do.
        assert httpx.get(f"{server}/healthz", headers={"Host": "example.org"}).status_code == 200


def test_only_loopback_goes_without_a_key() -> None:
    ran = run("serve", "--host", "0.0.0.0")
    assert ran.code == 2
    assert "IDETEX_API_KEY" in ran.error
    ran = run("serve", "--host", "192.0.2.1", "--api-key", "x")
    assert ran.code == 2
    assert "cannot listen on 192.0.2.1" in ran.error


@pytest.mark.skipif(os.name != "posix", reason="signals of Unix")
def test_a_stopped_server_answers_first(served_bundle: Path, served_photo: bytes) -> None:
    command = [
        sys.executable,
        "-m",
        "idetex_edge",
        "serve",
        "--port",
        "0",
        "--bundle",
        str(served_bundle),
    ]
    process = subprocess.Popen(
        [*command, "--workers", "1", "--threads", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        server = process.stdout.readline().split()[-1]
        photos = files(*[served_photo] * 8)
        with httpx.stream("POST", f"{server}/v1/describe", files=photos, timeout=60) as answer:
            parts = answer.iter_text()
            first = next(parts)
            process.send_signal(signal.SIGTERM)
            assert (first + "".join(parts)).count("event: done") == 8
        _, err = process.communicate(timeout=30)
        assert process.returncode == -signal.SIGTERM
        assert err == ""
    finally:
        process.kill()
