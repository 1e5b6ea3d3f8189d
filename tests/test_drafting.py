"""Drafts change how fast an answer is written, and nothing of what it says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from conftest import quiet
from edit_json import edit_json
from hypothesis import given
from hypothesis import strategies as st
from llguidance import LLTokenizer
from PIL import Image
from skimage import data
from tiny import tiny_tokenizer

from export.convert import Conversion, convert
from export.drafts import learn_drafts
from export.parity.pictures import Photograph
from idetex_edge import Assessor, BundleError, RequestError
from idetex_edge.bundle import Bundle, add_files, open_bundle
from idetex_edge.decoding import Reply, feed, finish
from idetex_edge.drafting import LONGEST, Drafter
from idetex_edge.engines.onnx import OnnxEngine
from idetex_edge.engines.protocol import Floats, Ids
from idetex_edge.engines.protocol import Sequence as Cached
from idetex_edge.errors import ExportError
from idetex_edge.grammar import Constraint, grounding_grammar
from idetex_edge.vocabulary import IM_END

TOKENIZER = tiny_tokenizer()
(STOP,) = TOKENIZER.encode(IM_END).ids
GUIDE = LLTokenizer(TOKENIZER.to_str(), eos_token=STOP)
PICTURE = Image.fromarray(data.coffee())

Answers = list[list[int]]


class Counting(OnnxEngine):
    """Counts calls of the decoder graph."""

    calls = 0

    def extend(
        self, sequence: Cached, embeddings: Floats, positions: npt.NDArray[np.int64]
    ) -> Floats:
        self.calls += 1
        return super().extend(sequence, embeddings, positions)

    def decode(self, sequences: Sequence[Cached], token_ids: Ids) -> Floats:
        self.calls += 1
        return super().decode(sequences, token_ids)

    def follow(self, sequence: Cached, token_ids: Ids) -> Floats:
        self.calls += 1
        return super().follow(sequence, token_ids)


@pytest.fixture(scope="module")
def engine(tiny_bundle: Bundle) -> Counting:
    return Counting(tiny_bundle, threads=1)


def answers(engine: Counting, drafter: Drafter | None) -> tuple[list[Reply], int]:
    """Three prompts, each free and constrained; how many calls all took."""
    replies: list[Reply] = []
    for words in ("How good?", "Where is it bad, and why?", "!"):
        for constrained, limit in ((True, 90), (False, 40)):
            sequence = engine.start(64)
            logits = feed(engine, sequence, TOKENIZER.encode(words).ids)
            constraint = Constraint(GUIDE, grounding_grammar()) if constrained else None
            replies.append(Reply(sequence, logits, frozenset({STOP}), limit, constraint))
    before = engine.calls
    for reply in replies:
        finish(engine, [reply], drafter)
    return replies, engine.calls - before


def wrong(tokens: Sequence[int]) -> list[int]:
    """Every third token another one."""
    return [(t + 1) % 200 if i % 3 == 2 else t for i, t in enumerate(tokens)]


@pytest.mark.parametrize("taught", ["right", "wrong now and then", "never right"])
def test_answers_are_those_without_drafts(engine: Counting, taught: str) -> None:
    plain, slowly = answers(engine, None)
    said = [reply.tokens for reply in plain]
    lessons = {
        "right": said * 2,
        "wrong now and then": [wrong(tokens) for tokens in said] * 2,
        "never right": [[t for token in tokens for t in (token, 3)] for tokens in said] * 2,
    }[taught]
    drafted, calls = answers(engine, Drafter.of_answers(lessons))
    for one, other in zip(plain, drafted, strict=True):
        assert one.tokens == other.tokens
        np.testing.assert_allclose(one.probabilities, other.probabilities, rtol=0, atol=1e-4)
        assert one.sequence.length == other.sequence.length
        assert one.sequence.next_position == other.sequence.next_position
        rows = [engine.decode([reply.sequence], [5])[0] for reply in (one, other)]
        np.testing.assert_allclose(*rows, rtol=0, atol=2e-5)
    assert calls <= slowly
    if taught == "right":
        assert calls < slowly / 2


def test_several_tokens_at_once_are_read_as_one_by_one(engine: Counting) -> None:
    together, alone = engine.start(64), engine.start(64)
    for sequence in (together, alone):
        feed(engine, sequence, [1, 2, 3])
    tokens = [7, 8, 9, 10, 11]
    rows = engine.follow(together, tokens)
    for row, token in zip(rows, tokens, strict=True):
        np.testing.assert_allclose(row, engine.decode([alone], [token])[0], rtol=0, atol=2e-5)
    engine.forget(together, 3)
    again = engine.start(64)
    feed(engine, again, [1, 2, 3, 7, 8])
    np.testing.assert_allclose(
        engine.decode([together], [4]), engine.decode([again], [4]), rtol=0, atol=2e-5
    )


def test_what_cannot_be_followed_or_taken_back(engine: Counting) -> None:
    with pytest.raises(RequestError, match="prompt"):
        engine.follow(engine.start(8), [1])
    sequence = engine.start(8)
    feed(engine, sequence, [1, 2])
    with pytest.raises(RequestError, match="prompt"):
        engine.follow(sequence, [])
    with pytest.raises(RequestError, match="cannot take back 2 of 2"):
        engine.forget(sequence, 2)


words = st.lists(st.lists(st.integers(0, 6), max_size=30), max_size=6)


@given(words, st.lists(st.integers(0, 6), max_size=12), st.integers(-2, 40))
def test_a_draft_goes_on_as_some_answer_did(said: Answers, begun: list[int], limit: int) -> None:
    drafter = Drafter.of_answers(said)
    drafted = drafter.draft(begun, limit)
    assert len(drafted) <= max(0, min(limit, LONGEST))
    pairs = {pair for answer in said for pair in pairwise(answer)}
    whole = [*begun[-1:], *drafted]
    assert all(pair in pairs for pair in pairwise(whole))


@given(words, st.lists(st.integers(0, 6), max_size=12))
def test_a_table_survives_its_file(
    tmp_path_factory: pytest.TempPathFactory, said: Answers, begun: list[int]
) -> None:
    drafter = Drafter.of_answers(said)
    path = tmp_path_factory.mktemp("drafts") / "drafts.json"
    path.write_text(drafter.to_json())
    again = Drafter.load(path)
    assert (len(again), again.draft(begun, 40)) == (len(drafter), drafter.draft(begun, 40))


def test_the_longest_context_decides() -> None:
    drafter = Drafter.of_answers([[1, 2, 3], [1, 2, 3], [0, 2, 4], [0, 2, 4]])
    assert drafter.draft([1, 2], 1) == [3]
    assert drafter.draft([0, 2], 1) == [4]
    assert drafter.draft([9, 2], 1) in ([3], [4])
    assert drafter.draft([1], 9) == [2, 3]
    assert Drafter.of_answers([[1, 2], [1, 3], [1, 4], [1, 5]]).draft([1], 1) == []
    assert drafter.draft([], 9) == []


@pytest.mark.parametrize("text", ["", "{", "3", "[3]", '[["a"], null]'])
def test_a_broken_table(tmp_path: Path, text: str) -> None:
    path = tmp_path / "drafts.json"
    path.write_text(text)
    with pytest.raises(BundleError, match="cannot read the drafts"):
        Drafter.load(path)


def test_a_bundle_with_drafts_says_the_same_sooner(tiny_bundle_path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(tiny_bundle_path, folder)
    plain = open_bundle(folder)
    told = Assessor(folder, engine="onnx:cpu", threads=1).assess(PICTURE)
    pictures = [Photograph("coffee", PICTURE)] * 2
    drafter = learn_drafts(plain, pictures, quiet)
    assert len(drafter) > 20
    add_files(plain, {"drafts.json": drafter.to_json().encode()})
    edit_json(folder / "manifest.json", {("drafts",): "drafts.json"})
    quick = Assessor(folder, engine="onnx:cpu", threads=1)
    assert quick.assess(PICTURE).to_dict() | {"timings": None} == told.to_dict() | {"timings": None}
    steps = list(quick.describe(PICTURE, stream=True))
    assert len(steps) < len(list(Assessor(tiny_bundle_path).describe(PICTURE, stream=True))) / 2
    edit_json(folder / "manifest.json", {("drafts",): "others.json"})
    with pytest.raises(BundleError, match=r"does not list others\.json"):
        open_bundle(folder)


def test_graphs_of_one_logit_do_not_draft(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="the last token's logits alone"):
        convert(
            Conversion(tiny_checkpoint, tmp_path / "b", target="onnx-standard", drafts=tmp_path),
            quiet,
        )


def test_convert_writes_drafts(
    brief_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(16):
        PICTURE.resize((56 + number, 56)).save(photos / f"{number}.png")
    seen: list[int] = []

    def learn(bundle: Bundle, pictures: Sequence[Photograph], advance: object) -> Drafter:
        seen.append(len(pictures))
        assert OnnxEngine(bundle, 1).drafts
        return Drafter.of_answers([[1, 2, 3]] * 2)

    monkeypatch.setattr("export.convert.learn_drafts", learn)
    made = convert(Conversion(brief_checkpoint, tmp_path / "bundle", drafts=photos, steps=4), quiet)
    assert seen == [16]
    manifest = json.loads((made.bundle.path / "manifest.json").read_text())
    assert manifest["drafts"] == "drafts.json"
    assert Drafter.load(made.bundle.file("drafts.json")).draft([1], 9) == [2, 3]
