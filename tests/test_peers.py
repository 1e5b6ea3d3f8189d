"""Peers are told what we are, and named when they are missing."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.peers import catalogue
from benchmarks.peers.flat_checkpoint import flat_checkpoint
from benchmarks.peers.prompting import Asked, OneByOne, Timed
from idetex_edge.asking import Asker
from idetex_edge.bundle import open_bundle
from idetex_edge.engines import load_engine
from idetex_edge.measuring.scenarios import SCENARIOS, picture
from idetex_edge.requests import Request
from idetex_edge.vocabulary import IMAGE_PAD, VISION_END, VISION_START

ROOT = Path(__file__).parents[1]


class Listening:
    """Notes what it is asked; every request takes a second until its first token, and one more."""

    def __init__(self) -> None:
        self.heard: list[Asked] = []

    def ask(self, picture: Path, asked: Asked) -> Timed:
        self.heard.append(asked)
        return Timed(vision=0.5, first=1.0, whole=2.0, prompt_tokens=30, prefill=0.5)

    def peak_memory(self) -> int:
        return 1


def test_a_peer_is_asked_what_we_are(tiny_bundle_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    picture(112, 84).save(path)
    peer = Listening()
    asked = replace(SCENARIOS["assess"].limited(7), forced=True)
    measured = OneByOne(peer, tiny_bundle_path).run(asked, path)
    assert measured.tokens == [1, 7, 7]
    assert measured.figures["first token"] == 1000
    assert measured.figures["decode"] == pytest.approx(12 / 3)
    bundle = open_bundle(tiny_bundle_path)
    asker = Asker(bundle, load_engine("onnx", bundle, 1), 10**6)
    seen = asker.see(path)
    requests: tuple[Request, ...] = asked.requests
    for one, prompt in zip(peer.heard, asker.prefill(seen, requests), strict=True):
        pads = IMAGE_PAD * len(seen.features)
        text = one.before + VISION_START + pads + VISION_END + one.behind
        assert len(asker.tokenizer.encode(text)) == prompt.length


def test_missing_peers_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(catalogue, "ENVIRONMENTS", tmp_path)
    assert catalogue.missing("transformers") is None
    assert "install.py openvino" in str(catalogue.missing("openvino-int8"))


def test_calls_that_make_no_sense() -> None:
    for arguments, message in (
        (["--peers", "abacus"], "unknown peer 'abacus'"),
        (["--bundle", "x", "--checkpoint", "y"], "exclude each other"),
        (["--shape", "9B"], "unknown shape '9B'"),
        (["--sizes", "448"], "--sizes '448' is not"),
    ):
        call = [sys.executable, "benchmarks/latency.py", *arguments]
        ran = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
        assert ran.returncode == 1
        assert message in ran.stderr


def test_flat_checkpoints_lose_nothing(tmp_path: Path) -> None:
    nano = ROOT / "checkpoints" / "nano"
    flat = flat_checkpoint(nano, tmp_path / "flat")
    old, new = (json.loads((f / "config.json").read_text()) for f in (nano, flat))
    rope = old["text_config"].pop("rope_parameters")
    assert new["rope_theta"] == rope["rope_theta"]
    assert new["rope_scaling"]["mrope_section"] == rope["mrope_section"]
    assert old["vision_config"].items() <= new["vision_config"].items()
    for name, value in old["text_config"].items():
        assert new[name] == old.get(name, value)
    assert {path.name for path in flat.iterdir()} == {path.name for path in nano.iterdir()}
