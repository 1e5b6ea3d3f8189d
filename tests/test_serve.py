"""The HTTP API, over real sockets: its answers are the Assessor's, its limits hold."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Generator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from command import run
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from prompted import with_prompts
from serving import HeldAssessor, serving
from skimage import data

from idetex_edge import Assessor
from idetex_edge.serve.guarded import GuardedAssessor
from idetex_edge.serve.settings import Settings


@pytest.fixture(scope="module")
def bundle(tiny_bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_prompts(tiny_bundle_path, tmp_path_factory.mktemp("serve") / "nano", "nano", 400)


@pytest.fixture(scope="module")
def server(bundle: Path) -> Generator[str]:
    with serving([GuardedAssessor(bundle, threads=1) for _ in range(2)]) as address:
        yield address


@pytest.fixture(scope="module")
def photo() -> bytes:
    return as_file(Image.fromarray(data.coffee()))


def as_file(image: Image.Image) -> bytes:
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def as_text(photo: bytes) -> str:
    return base64.b64encode(photo).decode()


def files(*photos: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("images", ("photo.png", photo)) for photo in photos]


def plain(value: object) -> Any:  # noqa: ANN401
    """The same after a trip through JSON."""
    return json.loads(json.dumps(value))


def events(answer: httpx.Response) -> list[tuple[str, dict[str, Any]]]:
    assert answer.headers["content-type"].startswith("text/event-stream")
    found: list[tuple[str, dict[str, Any]]] = []
    for block in answer.text.strip().split("\n\n"):
        name, body = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(body.removeprefix("data: "))))
    return found


def error_of(answer: httpx.Response) -> tuple[int, str]:
    """Status and kind of a refusal, which must have a line for people too."""
    error = answer.json()["error"]
    assert error["message"]
    assert "\n" not in error["message"]
    return answer.status_code, error["type"]


def test_assess_is_what_the_assessor_says(server: str, bundle: Path, photo: bytes) -> None:
    other = as_file(Image.fromarray(data.chelsea()))
    answer = httpx.post(f"{server}/v1/assess", files=files(photo, other), timeout=60)
    assert answer.status_code == 200
    results = answer.json()["results"]
    assessor = Assessor(bundle)
    for result, picture in zip(results, (photo, other), strict=True):
        expected = plain(assessor.assess(picture).to_dict())
        del result["timings"], expected["timings"]
        assert result == expected


def test_every_task_by_form_and_by_json(server: str, bundle: Path, photo: bytes) -> None:
    assessor = Assessor(bundle)
    grounded = {"width": 600, "height": 400}
    asked: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("score", {}, assessor.score(photo).to_dict()),
        ("ground", {}, grounded | {"distortions": assessor.ground(photo)}),
        (
            "ground",
            {"region": [10, 20, 300, 200]},
            grounded | {"distortions": assessor.ground(photo, (10, 20, 300, 200))},
        ),
        (
            "ground",
            {"type": "motion blur"},
            grounded | {"distortions": assessor.locate(photo, "motion blur")},
        ),
        (
            "ask",
            {"question": "Which?", "choices": ["Noise", "Blur"]},
            assessor.ask(photo, "Which?", ["Noise", "Blur"]).to_dict(),
        ),
        ("describe", {"stream": False}, assessor.describe(photo).to_dict()),
        (
            "describe",
            {"stream": False, "type": "noise"},
            assessor.describe(photo, "noise").to_dict(),
        ),
    ]
    for task, fields, expected in asked:
        if "distortions" in expected and task == "ground":
            expected["distortions"] = [d.to_dict() for d in expected["distortions"]]
        url = f"{server}/v1/{task}"
        body = {"images": [as_text(photo)], **fields}
        by_json = httpx.post(url, json=body, timeout=60)
        by_form = httpx.post(url, files=files(photo), data=fields, timeout=60)
        assert by_json.json() == {"model": assessor.model, "results": [plain(expected)]}
        assert by_form.json() == by_json.json()


def test_a_description_streams(server: str, bundle: Path, photo: bytes) -> None:
    answer = httpx.post(f"{server}/v1/describe", files=files(photo, photo), timeout=60)
    found = events(answer)
    expected = Assessor(bundle).describe(photo)
    for index in (0, 1):
        mine = [(name, event) for name, event in found if event["index"] == index]
        assert {name for name, _ in mine[:-1]} == {"piece"}
        assert "".join(event["piece"] for _, event in mine[:-1]) == expected.text
        assert mine[-1] == ("done", {"index": index, "description": plain(expected.to_dict())})


def test_openais_client_understands(server: str, bundle: Path, photo: bytes) -> None:
    client = openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0)
    assessor = Assessor(bundle)
    assert [model.id for model in client.models.list()] == [assessor.model]
    url = f"data:image/png;base64,{as_text(photo)}"

    def say(words: str, **options: Any) -> Any:  # noqa: ANN401
        parts: Any = [
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "text", "text": words},
        ]
        messages: Any = [{"role": "user", "content": parts}]
        create: Any = client.chat.completions.create
        return create(model=assessor.model, messages=messages, **options)

    question = say("Which is it?\nA. Noise\nB. Motion blur\nAnswer with a letter.")
    choice = assessor.ask(photo, "Which is it?\n", ["Noise", "Motion blur"])
    assert question.choices[0].message.content == "AB"[choice.index]
    whole = json.loads(
        say("Anything", response_format={"type": "json_object"}).choices[0].message.content
    )
    assert whole["score"] == pytest.approx(assessor.score(photo).score)
    streamed = say("Describe it.", stream=True, temperature=0.7, max_tokens=100)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in streamed)
    assert text == assessor.describe(photo).text == say("Tell me.").choices[0].message.content
    assert say("Why?").choices[0].message.content == assessor.answer(photo, "Why?")
    with pytest.raises(openai.NotFoundError, match="no model 'gpt'"):
        client.chat.completions.create(model="gpt", messages=[{"role": "user", "content": "hi"}])
    with pytest.raises(openai.UnprocessableEntityError, match="0 pictures"):
        client.chat.completions.create(
            model=assessor.model, messages=[{"role": "user", "content": "hi"}]
        )


BAD: list[tuple[str, dict[str, Any], tuple[int, str]]] = [
    ("score", {"content": b"{", "headers": {"content-type": "application/json"}}, (400, "json")),
    (
        "score",
        {"content": b"[" * 100_000, "headers": {"content-type": "application/json"}},
        (400, "json"),
    ),
    ("score", {"content": b"x", "headers": {"content-type": "text/plain"}}, (415, "content_type")),
    ("score", {"content": b"x", "headers": {"content-type": "multipart/form-data"}}, (400, "form")),
    ("score", {"json": {}}, (422, "request")),
    ("score", {"json": {"images": []}}, (422, "request")),
    ("score", {"json": {"images": ["!"]}}, (422, "base64")),
    ("score", {"json": {"images": ["data:image/png,abc"]}}, (422, "base64")),
    ("score", {"json": {"images": [""]}}, (422, "picture")),
    ("score", {"json": {"images": ["AAAA"]}}, (422, "picture")),
    ("score", {"json": {"images": ["AAAA"], "more": 1}}, (422, "request")),
    ("score", {"json": {"images": ["AAAA"] * 17}}, (422, "too_many_pictures")),
    ("score", {"json": {"images": ["http://127.0.0.1/"]}}, (422, "url")),
    ("score", {"files": [("images", b"GIF89a"), ("more", b"x")]}, (422, "request")),
    ("ask", {"json": {"images": ["AAAA"], "question": "?", "choices": ["1"]}}, (422, "request")),
    ("ask", {"json": {"images": ["AAAA"], "question": 7, "choices": ["1"] * 2}}, (422, "request")),
    ("ground", {"json": {"images": ["AAAA"], "region": [1, 2, 3]}}, (422, "request")),
    ("ground", {"json": {"images": ["AAAA"], "region": ["0", 0, 9, 9]}}, (422, "request")),
    ("ground", {"json": {"images": ["AAAA"], "type": "rust"}}, (422, "request")),
    (
        "ground",
        {"json": {"images": ["AAAA"], "type": "noise", "region": [0, 0, 9, 9]}},
        (422, "request"),
    ),
    ("nothing", {"json": {}}, (404, "http")),
]


@pytest.mark.parametrize(("task", "request_", "expected"), BAD)
def test_bad_requests(
    server: str, task: str, request_: dict[str, Any], expected: tuple[int, str]
) -> None:
    assert error_of(httpx.post(f"{server}/v1/{task}", **request_)) == expected


def test_a_bad_picture_among_several_is_named(server: str, photo: bytes) -> None:
    answer = httpx.post(f"{server}/v1/score", files=files(photo, b"no picture"), timeout=60)
    assert error_of(answer) == (422, "picture")
    assert answer.json()["error"]["message"].startswith("images[1]: ")
    narrow = as_file(Image.new("RGB", (4000, 10)))
    answer = httpx.post(f"{server}/v1/describe", files=files(narrow), timeout=60)
    assert error_of(answer) == (422, "picture")


def test_a_region_outside_of_the_picture(server: str, photo: bytes) -> None:
    body = {"images": [as_text(photo)], "region": [0, 0, 9999, 10]}
    answer = httpx.post(f"{server}/v1/ground", json=body)
    assert error_of(answer) == (422, "request")
    assert "600 x 400" in answer.json()["error"]["message"]


def test_limits_on_size(bundle: Path, photo: bytes) -> None:
    settings = Settings(max_body=100_000, max_pictures=2)
    with serving([GuardedAssessor(bundle, threads=1, max_pixels=1000)], settings) as server:
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


def test_queue_and_share_of_one_client(bundle: Path, photo: bytes) -> None:
    held = HeldAssessor(str(bundle))
    with serving([held], Settings(queue=2, per_client=4)) as server:
        answers: list[httpx.Response] = []
        url = f"{server}/v1/score"

        def ask(count: int) -> None:
            answers.append(httpx.post(url, files=files(*[photo] * count), timeout=60))

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
        refused = httpx.post(url, files=files(photo))
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
    held = HeldAssessor(str(bundle))
    with serving([held], Settings(queue=9, per_client=1)) as server:
        thread = threading.Thread(
            target=lambda: httpx.post(f"{server}/v1/score", files=files(photo), timeout=60)
        )
        thread.start()
        held.begun.wait(30)
        answer = httpx.post(f"{server}/v1/score", files=files(photo))
        assert error_of(answer) == (429, "too_many_requests")
        held.let_go.set()
        thread.join()


@pytest.mark.parametrize("task", ["score", "describe"])
def test_a_deadline_ends_the_work(bundle: Path, photo: bytes, task: str) -> None:
    held = HeldAssessor(str(bundle))
    with serving([held], Settings(deadline=0.5)) as server:
        answer = httpx.post(f"{server}/v1/{task}", files=files(photo), timeout=60)
        assert error_of(answer) == (504, "deadline")
        assert held.gave_up.wait(30)
        held.let_go.set()


def test_a_body_that_does_not_come_in_time(bundle: Path) -> None:
    with (
        serving([GuardedAssessor(bundle, threads=1)], Settings(deadline=0.5)) as server,
        socket.create_connection(("127.0.0.1", int(server.rpartition(":")[2]))) as client,
    ):
        client.sendall(
            b"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n"
            b"Content-Type: application/json\r\n\r\n{"
        )
        assert client.recv(1000).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("task", ["score", "describe"])
def test_a_client_that_leaves_frees_its_work(bundle: Path, photo: bytes, task: str) -> None:
    held = HeldAssessor(str(bundle))
    with serving([held]) as server:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{server}/v1/{task}", files=files(photo, photo), timeout=1)
        assert held.gave_up.wait(30)
        held.let_go.set()
        assert httpx.post(f"{server}/v1/score", files=files(photo), timeout=60).status_code == 200


def test_a_key_is_asked_for(bundle: Path, photo: bytes) -> None:
    with serving(
        [GuardedAssessor(bundle, threads=1)], Settings(host="0.0.0.0", api_key="open sesame")
    ) as server:
        for path in ("/v1/models", "/metrics"):
            assert error_of(httpx.get(server + path)) == (401, "key")
            for key in ("open", "open sesame!", "sésame"):
                headers = {b"Authorization": f"Bearer {key}".encode()}
                assert error_of(httpx.get(server + path, headers=headers)) == (401, "key")
            headers = {"Authorization": "Bearer open sesame"}
            assert httpx.get(server + path, headers=headers).status_code == 200
        assert error_of(httpx.post(f"{server}/v1/score", files=files(photo))) == (401, "key")
        assert httpx.get(f"{server}/healthz").status_code == 200
        # With a key any name will do.
        assert httpx.get(f"{server}/healthz", headers={"Host": "example.org"}).status_code == 200


def test_names_that_lead_here_from_elsewhere(server: str) -> None:
    for host, status in (
        ("localhost", 200),
        ("127.0.0.1:80", 200),
        ("[::1]:80", 200),
        ("example.org", 403),
        ("localhost.example.org:80", 403),
    ):
        answer = httpx.get(f"{server}/healthz", headers={"Host": host})
        assert answer.status_code == status, host


def test_only_loopback_goes_without_a_key() -> None:
    ran = run("serve", "--host", "0.0.0.0")
    assert ran.code == 2
    assert "IDETEX_API_KEY" in ran.error
    ran = run("serve", "--host", "192.0.2.1", "--api-key", "x")
    assert ran.code == 2
    assert "cannot listen on 192.0.2.1" in ran.error


@pytest.mark.skipif(os.name != "posix", reason="signals of Unix")
def test_a_stopped_server_answers_first(bundle: Path, photo: bytes) -> None:
    command = [sys.executable, "-m", "idetex_edge", "serve", "--port", "0", "--bundle", str(bundle)]
    process = subprocess.Popen(
        [*command, "--workers", "1", "--threads", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        server = process.stdout.readline().split()[-1]
        photos = files(*[photo] * 8)
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


def test_metrics_count_routes_not_paths(server: str) -> None:
    httpx.get(f"{server}/surprise-{os.getpid()}")
    text = httpx.get(f"{server}/metrics").text
    families = {f.name: f for f in text_string_to_metric_families(text)}
    paths = {sample.labels["path"] for sample in families["idetex_requests"].samples}
    assert "other" in paths
    assert not any("surprise" in path for path in paths)
    assert families["process_resident_memory_bytes"].samples[0].value > 1e6
