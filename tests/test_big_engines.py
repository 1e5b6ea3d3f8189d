"""The benchmark that builds a big checkpoint's engines, on a shape that is small."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import shapes
from benchmarks.big_engines import RandomWeights, big_engines

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """3B's name for a model of two layers, with nano's tokens."""
    words = json.loads((shapes.NANO / "config.json").read_text())["text_config"]["vocab_size"]
    text = {
        "hidden_size": 512,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": words,
        "max_position_embeddings": 256,
    }
    vision = {
        "depth": 2,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_heads": 2,
        "patch_size": 14,
        "window_size": 112,
        "fullatt_block_indexes": [1],
    }
    monkeypatch.setitem(shapes.TEXT, "3B", text)
    monkeypatch.setattr(shapes, "_VISION_2_5", vision)


def test_weights_are_the_same_every_time(small: None) -> None:
    weights = RandomWeights("3B")
    name = "text.layers.1.mlp.down_proj.weight"
    first = weights.read(name)
    assert first.shape == weights.shape(name)
    np.testing.assert_array_equal(first, RandomWeights("3B").read(name))
    assert first.std() == pytest.approx(0.02, rel=0.1)
    norm = weights.read("text.layers.1.input_layernorm.weight")
    assert norm.mean() == pytest.approx(1, abs=0.01)


def test_every_engine_is_built_and_told_of(small: None, tmp_path: Path) -> None:
    output = tmp_path / "figures.json"
    big_engines(tmp_path / "work", limit=100.0, output=output)
    told = json.loads(output.read_text())
    assert (told["shape"], told["precision"]) == ("3B", "fp16")
    assert [engine["graph"] for engine in told["engines"]] == ["vision", "decoder"]
    for engine in told["engines"]:
        assert engine["status"] == 0
        assert 0 < engine["engine_gb"] < 0.1 < engine["peak_gb"]
        assert engine["report"].startswith(f"{engine['graph']}: ")
    assert [*(tmp_path / "work").iterdir()] == []


def test_what_is_above_the_limit_is_not_built(small: None, tmp_path: Path) -> None:
    output = tmp_path / "figures.json"
    big_engines(tmp_path / "work", limit=0.1, output=output, keep=True)
    assert all("not_built" in engine for engine in json.loads(output.read_text())["engines"])
    assert not [*(tmp_path / "work").rglob("*.engine")]
