"""The HTTP API, over real sockets: its answers are the Assessor's, what is wrong is refused."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from serving import as_file, error_of, files, serving
from skimage import data

from idetex_edge import Assessor
from idetex_edge.serve.guarded import GuardedAssessor


@pytest.fixture(scope="module")
def server(served_bundle: Path) -> Generator[str]:
    with serving([GuardedAssessor(served_bundle, threads=1) for _ in range(2)]) as address:
        yield address


def as_text(photo: bytes) -> str:
    return base64.b64encode(photo).decode()


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


def test_assess_is_what_the_assessor_says(
    server: str, served_bundle: Path, served_photo: bytes
) -> None:
    other = as_file(Image.fromarray(data.chelsea()))
    answer = httpx.post(f"{server}/v1/assess", files=files(served_photo, other), timeout=60)
    assert answer.status_code == 200
    results = answer.json()["results"]
    assessor = Assessor(served_bundle)
    for result, picture in zip(results, (served_photo, other), strict=True):
        expected = plain(assessor.assess(picture).to_dict())
        del result["timings"], expected["timings"]
        assert result == expected


def test_every_task_by_form_and_by_json(
    server: str, served_bundle: Path, served_photo: bytes
) -> None:
    assessor = Assessor(served_bundle)
    grounded = {"width": 600, "height": 400}
    asked: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("score", {}, assessor.score(served_photo).to_dict()),
        ("ground", {}, grounded | {"distortions": assessor.ground(served_photo)}),
        (
            "ground",
            {"region": [10, 20, 300, 200]},
            grounded | {"distortions": assessor.ground(served_photo, (10, 20, 300, 200))},
        ),
        (
            "ground",
            {"type": "motion blur"},
            grounded | {"distortions": assessor.locate(served_photo, "motion blur")},
        ),
        (
            "ask",
            {"question": "Which?", "choices": ["Noise", "Blur"]},
            assessor.ask(served_photo, "Which?", ["Noise", "Blur"]).to_dict(),
        ),
        ("describe", {"stream": False}, assessor.describe(served_photo).to_dict()),
        (
            "describe",
            {"stream": False, "type": "noise"},
            assessor.describe(served_photo, "noise").to_dict(),
        ),
    ]
    for task, fields, expected in asked:
        if "distortions" in expected and task == "ground":
            expected["distortions"] = [d.to_dict() for d in expected["distortions"]]
        url = f"{server}/v1/{task}"
        body = {"images": [as_text(served_photo)], **fields}
        by_json = httpx.post(url, json=body, timeout=60)
        by_form = httpx.post(url, files=files(served_photo), data=fields, timeout=60)
        assert by_json.json() == {"model": assessor.model, "results": [plain(expected)]}
        assert by_form.json() == by_json.json()


def test_a_description_streams(server: str, served_bundle: Path, served_photo: bytes) -> None:
    answer = httpx.post(
        f"{server}/v1/describe", files=files(served_photo, served_photo), timeout=60
    )
    found = events(answer)
    expected = Assessor(served_bundle).describe(served_photo)
    for index in (0, 1):
        mine = [(name, event) for name, event in found if event["index"] == index]
        assert {name for name, _ in mine[:-1]} == {"piece"}
        assert "".join(event["piece"] for _, event in mine[:-1]) == expected.text
        assert mine[-1] == ("done", {"index": index, "description": plain(expected.to_dict())})


def test_openais_client_understands(server: str, served_bundle: Path, served_photo: bytes) -> None:
    client = openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0)
    assessor = Assessor(served_bundle)
    assert [model.id for model in client.models.list()] == [assessor.model]
    url = f"data:image/png;base64,{as_text(served_photo)}"

    def say(words: str, **options: Any) -> Any:  # noqa: ANN401
        parts: Any = [
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "text", "text": words},
        ]
        messages: Any = [{"role": "user", "content": parts}]
        create: Any = client.chat.completions.create
        return create(model=assessor.model, messages=messages, **options)

    question = say("Which is it?\nA. Noise\nB. Motion blur\nAnswer with a letter.")
    choice = assessor.ask(served_photo, "Which is it?\n", ["Noise", "Motion blur"])
    assert question.choices[0].message.content == "AB"[choice.index]
    whole = json.loads(
        say("Anything", response_format={"type": "json_object"}).choices[0].message.content
    )
    assert whole["score"] == pytest.approx(assessor.score(served_photo).score)
    streamed = say("Describe it.", stream=True, temperature=0.7, max_tokens=100)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in streamed)
    assert (
        text == assessor.describe(served_photo).text == say("Tell me.").choices[0].message.content
    )
    assert say("Why?").choices[0].message.content == assessor.answer(served_photo, "Why?")
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


def test_a_bad_picture_among_several_is_named(server: str, served_photo: bytes) -> None:
    answer = httpx.post(f"{server}/v1/score", files=files(served_photo, b"no picture"), timeout=60)
    assert error_of(answer) == (422, "picture")
    assert answer.json()["error"]["message"].startswith("images[1]: ")
    narrow = as_file(Image.new("RGB", (4000, 10)))
    answer = httpx.post(f"{server}/v1/describe", files=files(narrow), timeout=60)
    assert error_of(answer) == (422, "picture")


def test_a_region_outside_of_the_picture(server: str, served_photo: bytes) -> None:
    body = {"images": [as_text(served_photo)], "region": [0, 0, 9999, 10]}
    answer = httpx.post(f"{server}/v1/ground", json=body)
    assert error_of(answer) == (422, "request")
    assert "600 x 400" in answer.json()["error"]["message"]


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


def test_metrics_count_routes_not_paths(server: str) -> None:
    httpx.get(f"{server}/surprise-{os.getpid()}")
    text = httpx.get(f"{server}/metrics").text
    families = {f.name: f for f in text_string_to_metric_families(text)}
    paths = {sample.labels["path"] for sample in families["idetex_requests"].samples}
    assert "other" in paths
    assert not any("surprise" in path for path in paths)
    assert families["process_resident_memory_bytes"].samples[0].value > 1e6
