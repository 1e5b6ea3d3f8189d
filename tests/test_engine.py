from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from conftest import to_bundle

from idetex_edge import engines
from idetex_edge.bundle import Bundle, open_bundle
from idetex_edge.engines import Engine, Sequence, load_engine
from idetex_edge.errors import EngineError, RequestError

Floats = npt.NDArray[np.float32]


@pytest.fixture(scope="module", params=["onnx-cpu", "onnx-standard"])
def tiny_engine(
    request: pytest.FixtureRequest,
    tiny_bundle_path: Path,
    tiny_checkpoint: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Engine:
    """The engine on the tiny model, in either form of graph that it runs."""
    path = tiny_bundle_path
    if request.param == "onnx-standard":
        output = tmp_path_factory.mktemp("standard") / "bundle"
        path = to_bundle(tiny_checkpoint, output, target="onnx-standard")
    return load_engine("onnx", open_bundle(path), threads=1)


def assert_close(got: Floats, expected: Floats) -> None:
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-5)


def text_positions(start: int, count: int) -> npt.NDArray[np.int64]:
    return np.broadcast_to(np.arange(start, start + count), (3, count))


def prompt(engine: Engine, ids: list[int], capacity: int = 64, skip: int = 0) -> Sequence:
    """A sequence whose positions run ahead of its slots by `skip` less per picture, as M-RoPE's."""
    sequence = engine.start(capacity)
    engine.extend(sequence, engine.embed(ids), text_positions(0, len(ids)) // (skip + 1))
    return sequence


def one_by_one(engine: Engine, sequence: Sequence, ids: list[int]) -> list[Floats]:
    return [engine.decode([sequence], [token])[0] for token in ids]


def test_splitting_a_prompt_changes_nothing(tiny_engine: Engine) -> None:
    ids = list(range(20, 60))
    rng = np.random.default_rng(0)
    positions = np.sort(rng.integers(0, 30, (3, 40)), axis=1)
    whole, parts = tiny_engine.start(40), tiny_engine.start(1)
    expected = tiny_engine.extend(whole, tiny_engine.embed(ids), positions)
    logits: Floats = np.empty(0, np.float32)
    for first, last in ((0, 7), (7, 8), (8, 40)):
        logits = tiny_engine.extend(
            parts, tiny_engine.embed(ids[first:last]), positions[:, first:last]
        )
    assert_close(logits, expected)
    assert whole.length == parts.length == 40
    assert whole.next_position == parts.next_position == positions.max() + 1


def test_a_long_prompt_equals_itself_in_uneven_parts(tiny_engine: Engine) -> None:
    """Longer than what is read in one run, behind tokens that were read before."""
    rng = np.random.default_rng(0)
    ids = rng.integers(20, 200, 600).tolist()
    positions = np.sort(rng.integers(0, 500, (3, 600)), axis=1)
    whole, parts = tiny_engine.start(600), tiny_engine.start(600)
    logits: list[Floats] = []
    for sequence, cuts in ((whole, (0, 10, 600)), (parts, (0, 10, 133, 350, 351, 600))):
        found = [
            tiny_engine.extend(sequence, tiny_engine.embed(ids[a:b]), positions[:, a:b])
            for a, b in pairwise(cuts)
        ]
        logits.append(found[-1])
    assert_close(logits[0], logits[1])
    assert whole.length == 600
    assert whole.next_position == positions.max() + 1


def test_decoding_equals_prefill(tiny_engine: Engine) -> None:
    ids = list(range(30, 50))
    sequence = prompt(tiny_engine, ids[:5])
    decoded = one_by_one(tiny_engine, sequence, ids[5:])
    whole = tiny_engine.start(20)
    expected = tiny_engine.extend(whole, tiny_engine.embed(ids), text_positions(0, 20))
    assert_close(decoded[-1], expected)
    assert sequence.next_position == 20


def test_forks_of_several_prompts_decode_as_one_batch(tiny_engine: Engine) -> None:
    """Ragged lengths and rotary offsets, extended apart, finished apart, and out of order."""
    long = prompt(tiny_engine, list(range(10, 50)), skip=3)
    short = prompt(tiny_engine, [7, 8, 9])
    batch = [*tiny_engine.fork(long, 3, 64), *tiny_engine.fork(short, 1, 8)]
    alone = [*(tiny_engine.fork(long, 1, 64)[0] for _ in range(3))]
    alone += tiny_engine.fork(short, 1, 64)
    for sequences in (batch, alone):
        extra = tiny_engine.embed([60, 61])
        first = sequences[1].next_position
        tiny_engine.extend(sequences[1], extra, text_positions(first, 2))
    rng = np.random.default_rng(1)
    for rows in ([0, 1, 2], [0, 1, 2, 3], [3, 1, 0, 2], [2, 0], [1], [3, 2, 0], [0, 1, 2, 3]):
        ids = rng.integers(0, 280, len(rows))
        logits = tiny_engine.decode([batch[i] for i in rows], ids)
        for i, token, got in zip(rows, ids, logits, strict=True):
            assert_close(got, one_by_one(tiny_engine, alone[i], [token])[0])
    assert [s.length for s in batch] == [s.length for s in alone]
    assert [s.next_position for s in batch] == [s.next_position for s in alone]
    assert (long.length, short.length) == (40, 3)


def test_running_past_capacity_grows(tiny_engine: Engine) -> None:
    ids = [int(i) for i in np.random.default_rng(2).integers(0, 280, 80)]
    small = tiny_engine.fork(prompt(tiny_engine, [5, 6], capacity=2), 2, 2)
    roomy = tiny_engine.fork(prompt(tiny_engine, [5, 6]), 2, 100)
    for token in ids:
        got, expected = (tiny_engine.decode(s, [token, token + 1]) for s in (small, roomy))
        assert_close(got, expected)


def test_int8_answers_do_not_depend_on_the_batch(tiny_checkpoint: Path, tmp_path: Path) -> None:
    bundle = open_bundle(to_bundle(tiny_checkpoint, tmp_path / "int8", "int8"))
    engine = load_engine("onnx", bundle, threads=1)
    ids = list(range(10, 40))
    start = prompt(engine, ids)
    together = engine.decode(engine.fork(start, 3, 64), [5, 6, 7])
    for token, got in zip([5, 6, 7], together, strict=True):
        assert_close(got, engine.decode(engine.fork(start, 1, 64), [token])[0])


def test_more_forks_than_slots(tiny_engine: Engine) -> None:
    forks = tiny_engine.fork(prompt(tiny_engine, [5]), 40, 8)
    logits = tiny_engine.decode(forks, [9] * 40)
    assert_close(logits, np.broadcast_to(logits[0], logits.shape))


def test_requests_that_make_no_sense(tiny_engine: Engine, tiny_bundle: Bundle) -> None:
    vocab, context = tiny_bundle.manifest.text.vocab, tiny_bundle.manifest.text.max_context
    sequence = prompt(tiny_engine, [1, 2, 3])
    embeddings = tiny_engine.embed([4, 5])
    for wrong in (
        lambda: tiny_engine.embed([vocab]),
        lambda: tiny_engine.embed([-1]),
        lambda: tiny_engine.start(context + 1),
        lambda: tiny_engine.start(0),
        lambda: tiny_engine.extend(sequence, embeddings, text_positions(0, 3)),
        lambda: tiny_engine.extend(sequence, embeddings[:0], text_positions(0, 0)),
        lambda: tiny_engine.fork(sequence, 0, 8),
        lambda: tiny_engine.decode([], []),
        lambda: tiny_engine.decode([sequence], [1, 2]),
        lambda: tiny_engine.decode([sequence, sequence], [1, 2]),
        lambda: tiny_engine.decode([tiny_engine.start(4)], [1]),
    ):
        with pytest.raises(RequestError):
            wrong()
    assert sequence.length == 3


def test_engines_by_name(tiny_bundle: Bundle) -> None:
    assert load_engine("auto", tiny_bundle).name == "onnx:cpu"
    assert load_engine("onnx:cpu", tiny_bundle).name == "onnx:cpu"
    with pytest.raises(
        EngineError, match="unknown engine 'abacus'; known are auto, onnx, onnx:cpu"
    ):
        load_engine("abacus", tiny_bundle)
    with pytest.raises(EngineError, match="0 threads"):
        load_engine("onnx", tiny_bundle, threads=0)
    foreign = replace(tiny_bundle, manifest=replace(tiny_bundle.manifest, target="toaster"))
    with pytest.raises(EngineError, match="toaster"):
        load_engine("onnx", foreign)


def test_auto_passes_over_engines_that_fail(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(bundle: Bundle, threads: int | None) -> Engine:
        raise EngineError("no such card")

    monkeypatch.setattr(engines, "ENGINES", {"card": broken, **engines.ENGINES})
    with pytest.warns(RuntimeWarning, match="card: no such card"):
        assert load_engine("auto", tiny_bundle).name == "onnx:cpu"
    monkeypatch.setattr(engines, "ENGINES", {"card": broken})
    with pytest.raises(EngineError, match="no engine works"):
        load_engine("auto", tiny_bundle)


def test_naming_engines_loads_no_runtime() -> None:
    code = (
        "import sys, idetex_edge.engines, idetex_edge.bundle;"
        "sys.exit(any(m in sys.modules for m in ('onnxruntime', 'torch', 'transformers', 'onnx')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
