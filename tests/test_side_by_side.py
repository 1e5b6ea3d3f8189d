"""Answers written in several threads are those of one."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from llguidance import LLTokenizer
from PIL import Image
from random_engine import RandomEngine
from skimage import data
from tiny import tiny_tokenizer

from idetex_edge import Assessor
from idetex_edge.bundle import Bundle
from idetex_edge.decoding import Reply, feed, finish
from idetex_edge.drafting import Drafter
from idetex_edge.engines import Engine, Sequence
from idetex_edge.engines.onnx import OnnxEngine
from idetex_edge.engines.protocol import Floats
from idetex_edge.errors import EngineError, RequestError
from idetex_edge.grammar import Constraint, grounding_grammar
from idetex_edge.sharing import Tail, prefill
from idetex_edge.vocabulary import IM_END

TOKENIZER = tiny_tokenizer()
(STOP,) = TOKENIZER.encode(IM_END).ids
GUIDE = LLTokenizer(TOKENIZER.to_str(), eos_token=STOP)
PICTURE = Image.fromarray(data.coffee())


@pytest.fixture(scope="module")
def alone(tiny_bundle: Bundle) -> OnnxEngine:
    return OnnxEngine(tiny_bundle, threads=1)


@pytest.fixture(scope="module")
def several(tiny_bundle: Bundle) -> OnnxEngine:
    return OnnxEngine(tiny_bundle, threads=3)


def begun(engine: Engine) -> list[Reply]:
    """Five answers behind one prompt, of several lengths; every other one constrained."""
    stem = engine.start(8)
    feed(engine, stem, TOKENIZER.encode("How good?").ids)
    replies: list[Reply] = []
    for number, fork in enumerate(engine.fork(stem, 5, 12)):
        constraint = Constraint(GUIDE, grounding_grammar()) if number % 2 else None
        logits = feed(engine, fork, [number + 1])
        replies.append(Reply(fork, logits, frozenset({STOP}), 60 + 9 * number, constraint))
    return replies


@pytest.mark.parametrize("drafted", [False, True])
def test_answers_are_those_of_one_thread(
    alone: OnnxEngine, several: OnnxEngine, drafted: bool
) -> None:
    """Sequences outgrow the room that they were forked with, each in a thread of its own."""
    assert (alone.lanes, several.lanes) == (1, 3)
    expected, found = begun(alone), begun(several)
    finish(alone, expected)
    drafter = Drafter.of_answers([reply.tokens for reply in expected] * 2) if drafted else None
    finish(several, found, drafter)
    for one, other in zip(expected, found, strict=True):
        assert one.tokens == other.tokens
        np.testing.assert_allclose(one.probabilities, other.probabilities, rtol=0, atol=1e-4)
        assert one.sequence.next_position == other.sequence.next_position


def test_forks_go_on_without_one_another(alone: OnnxEngine, several: OnnxEngine) -> None:
    rows: list[list[Floats]] = []
    for engine in (alone, several):
        stem = engine.start(8)
        feed(engine, stem, [1, 2, 3])
        long, short = engine.fork(stem, 2, 8)
        feed(engine, long, list(range(1, 90)))
        rows.append([feed(engine, short, [5]), feed(engine, stem, [6]), feed(engine, long, [7])])
        rows[-1] += [*engine.decode([long, stem, short], [9, 8, 7])]
    for one, other in zip(*rows, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-5)


@pytest.mark.parametrize("worth_waking", [1, 1_000_000, 10**9])
def test_what_is_read_by_all_threads(
    tiny_bundle: Bundle, alone: OnnxEngine, monkeypatch: pytest.MonkeyPatch, worth_waking: int
) -> None:
    """Everything, long prompts, or nothing; on one cache."""
    monkeypatch.setattr("idetex_edge.engines.onnx._WORTH_WAKING", worth_waking)
    engine = OnnxEngine(tiny_bundle, threads=3)
    assert engine.lanes == (1 if worth_waking == 1 else 3)
    rows: list[list[Floats]] = []
    for reader in (alone, engine):
        sequence = reader.start(300)
        rows.append([feed(reader, sequence, [1 + i % 90 for i in range(200)])])
        rows[-1] += [*reader.decode([sequence], [5]), *reader.follow(sequence, [6, 7, 8])]
    for one, other in zip(*rows, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-5)


def test_what_fails_in_a_thread_is_raised() -> None:
    class Overflowing(RandomEngine):
        lanes = 2

        def lane(self) -> nullcontext[None]:
            return nullcontext()

    engine = Overflowing(TOKENIZER.get_vocab_size(), 0)
    replies: list[Reply] = []
    for number in range(2):
        sequence = engine.start(8)
        logits = feed(engine, sequence, [1])
        logits = np.full_like(logits, np.nan) if number else logits
        replies.append(Reply(sequence, logits, frozenset({STOP}), 5))
    with pytest.raises(EngineError, match="overflowed"):
        finish(engine, replies)


LONG = [5 + i % 40 for i in range(30)]
READ = [Tail([*start, number], 0) for number in range(1, 6) for start in (LONG, [number] * 20)]


def test_questions_are_read_as_by_one_thread(
    alone: OnnxEngine, several: OnnxEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some behind a beginning that they share; and beside one that is written."""
    threads = {threading.get_ident()}
    all_there = threading.Barrier(3, timeout=60)

    def extend(sequence: Sequence, embeddings: Floats, positions: npt.NDArray[np.int64]) -> Floats:
        if threading.get_ident() not in threads:
            threads.add(threading.get_ident())
            all_there.wait()
        return OnnxEngine.extend(several, sequence, embeddings, positions)

    monkeypatch.setattr(several, "extend", extend)
    found: list[list[Floats]] = []
    for engine in (alone, several):
        stem = engine.start(8)
        feed(engine, stem, [1, 2, 3])
        found.append([one.logits for one in prefill(engine, stem, [*READ, Tail([9], 4)])])
        assert stem.length == stem.next_position == 3
    assert len(threads) == 1 + 3
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-5)


def test_a_question_that_fails_in_a_thread_spoils_no_other(several: OnnxEngine) -> None:
    stem = several.start(8)
    feed(several, stem, [1, 2, 3])
    with pytest.raises(RequestError, match="vocabulary"):
        prefill(several, stem, [*READ, Tail([10**6], 0)])
    assert stem.length == 3
    again = prefill(several, stem, READ[:1])[0].logits
    fresh = several.start(8)
    logits = feed(several, fresh, [1, 2, 3, *READ[0].tokens])
    np.testing.assert_allclose(again, logits, rtol=0, atol=2e-5)


def test_a_picture_is_assessed_alike(tiny_bundle_path: Path) -> None:
    told = [
        Assessor(tiny_bundle_path, engine="onnx:cpu", threads=threads).assess(PICTURE).to_dict()
        for threads in (1, 2)
    ]
    assert told[0] | {"timings": None} == told[1] | {"timings": None}
