from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from prompted import with_prompts
from skimage import data

from idetex_edge import (
    Assessor,
    BundleError,
    Distortion,
    EncodedImage,
    EngineError,
    ImageError,
    RequestError,
)
from idetex_edge import assessor as assessor_module
from idetex_edge.assessor import same_as_found
from idetex_edge.boxes import overlap, to_thousandths
from idetex_edge.decoding import Reply
from idetex_edge.engines.protocol import Floats
from idetex_edge.parsing import plain_text
from idetex_edge.positions import mrope_positions
from idetex_edge.prompts import options_text
from idetex_edge.tokenizer import BundleTokenizer
from idetex_edge.vocabulary import IMAGE_PAD, LEVELS

COFFEE = Image.fromarray(data.coffee())
QUESTION = "What is the most significant distortion?"
CHOICES = ["Noise", "Motion blur", "Low clarity"]


@pytest.fixture(scope="module", params=["nano", "vida"])
def assessor(
    request: pytest.FixtureRequest,
    tiny_bundle_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Assessor:
    """One system prompt for all tasks behind which the picture stands, or one for each task."""
    folder = tmp_path_factory.mktemp("bundles") / request.param
    context = {"nano": 1000, "vida": 3600}[request.param]
    return Assessor(with_prompts(tiny_bundle_path, folder, request.param, context), threads=1)


@pytest.fixture
def seen(assessor: Assessor) -> EncodedImage:
    return assessor.encode(COFFEE)


def last_logits(assessor: Assessor, seen: EncodedImage, task: str, **fields: str) -> Floats:
    """Logits of a whole prompt put to the model in one piece."""
    bundle = assessor.bundle
    prompt = bundle.manifest.prompts[task]
    pads = IMAGE_PAD * len(seen.features)
    text = prompt.head(seen.columns, seen.rows) + pads + prompt.tail(**fields)
    ids = np.array(BundleTokenizer(bundle).encode(text))
    image_token = bundle.manifest.tokens[IMAGE_PAD]
    merge = bundle.manifest.vision.merge
    positions, _ = mrope_positions(
        ids,
        image_token=image_token,
        grid=(seen.rows * merge, seen.columns * merge),
        merge_size=merge,
    )
    assert seen.engine is not None
    embeddings = seen.engine.embed(ids)
    embeddings[ids == image_token] = seen.features
    return seen.engine.extend(seen.engine.start(len(ids)), embeddings, positions)


def shares(logits: Floats) -> Floats:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def test_the_score_is_read_from_the_whole_prompt(assessor: Assessor, seen: EncodedImage) -> None:
    tokenizer = BundleTokenizer(assessor.bundle)
    ids = [tokenizer.encode(f" {level}")[0] for level in LEVELS]
    expected = shares(last_logits(assessor, seen, "score")[ids])
    score = assessor.score(seen)
    np.testing.assert_allclose(list(score.level_probabilities.values()), expected, atol=1e-5)
    assert score.mos == pytest.approx(float(expected @ np.arange(1, 6)), abs=1e-4)
    assert np.ptp(expected) > 0.01


def test_answers_are_read_from_the_whole_prompt(assessor: Assessor, seen: EncodedImage) -> None:
    tokenizer = BundleTokenizer(assessor.bundle)
    fields = {"question": QUESTION, "options": options_text(CHOICES)}
    logits = last_logits(assessor, seen, "choice", **fields)
    expected = shares(logits[[tokenizer.encode(letter)[0] for letter in "ABC"]])
    answer = assessor.ask(seen, QUESTION, CHOICES)
    np.testing.assert_allclose(answer.probabilities, expected, atol=1e-5)
    assert answer.index == expected.argmax()
    assert answer.choice == CHOICES[answer.index]


def assert_same(found: Sequence[Distortion], expected: Sequence[Distortion]) -> None:
    assert [replace(d, confidence=0.0) for d in found] == [
        replace(d, confidence=0.0) for d in expected
    ]
    sure = [d.confidence for d in found]
    assert sure == pytest.approx([d.confidence for d in expected], abs=1e-5)
    assert all(0 <= confidence <= 1 for confidence in sure)


def test_everything_at_once_is_each_by_itself(assessor: Assessor) -> None:
    everything = assessor.assess(COFFEE)
    score = assessor.score(COFFEE)
    assert everything.score == pytest.approx(score.score, abs=1e-3)
    assert everything.level == score.level
    assert_same(everything.distortions, assessor.ground(COFFEE))
    assert everything.description == plain_text(assessor.describe(COFFEE).text)
    assert (everything.width, everything.height, everything.path) == (600, 400, None)
    assert everything.image == COFFEE
    assert set(everything.timings) == {"encode", "prefill", "decode", "total"}


def test_the_same_twice(assessor: Assessor) -> None:
    first, second = (assessor.assess(COFFEE).to_dict() | {"timings": None} for _ in range(2))
    assert first == second
    json.dumps(first, allow_nan=False)


def test_any_kind_of_picture_gives_the_same(assessor: Assessor, tmp_path: Path) -> None:
    path = tmp_path / "coffee.png"
    COFFEE.save(path)
    expected = assessor.score(assessor.encode(COFFEE))
    sources = (str(path), path, path.read_bytes(), BytesIO(path.read_bytes()), data.coffee())
    assert [assessor.score(source) for source in sources] == [expected] * len(sources)
    assert assessor.encode(path).path == str(path)
    assert assessor.encode(COFFEE).path is None


def test_an_encoded_picture_serves_all_tasks(assessor: Assessor, seen: EncodedImage) -> None:
    region = (100, 50, 420, 390)
    for _ in range(2):
        assert assessor.score(seen) == assessor.score(COFFEE)
        assert assessor.ground(seen) == assessor.ground(COFFEE)
        assert assessor.ground(seen, region) == assessor.ground(COFFEE, region)
        assert assessor.locate(seen, "Noise") == assessor.locate(COFFEE, " noise ")
        assert assessor.ask(seen, QUESTION, CHOICES) == assessor.ask(COFFEE, QUESTION, CHOICES)
    assert assessor.assess(seen).distortions == assessor.assess(COFFEE).distortions


def test_open_questions_and_single_distortions(assessor: Assessor, seen: EncodedImage) -> None:
    for question in (QUESTION, "How severe is the noise?"):
        said = assessor.answer(seen, question)
        assert said == assessor.answer(COFFEE, question)
    if "single" in assessor.bundle.manifest.prompts:
        noise = assessor.describe(seen, " Noise ")
        assert noise == assessor.describe(COFFEE, "noise")
        assert "".join(assessor.describe(seen, "noise", stream=True)) == noise.text
        assert noise.text != assessor.describe(seen, "motion blur").text
    else:
        with pytest.raises(RequestError, match="has not learnt the task 'single'"):
            assessor.describe(seen, "noise")
    with pytest.raises(RequestError, match="empty"):
        assessor.answer(seen, "  ")
    with pytest.raises(RequestError, match="unknown distortion"):
        assessor.describe(seen, "dirt")


def test_questions_together_are_answered_as_each_alone(
    assessor: Assessor, seen: EncodedImage
) -> None:
    questions = [
        (QUESTION, CHOICES),
        (QUESTION, CHOICES[::-1]),
        ("Where?", ["Left", "Right"]),
        (QUESTION, CHOICES),
        (QUESTION, [*CHOICES, "Noise"]),
    ]
    together = assessor.ask_all(seen, questions)
    for answer, (question, choices) in zip(together, questions, strict=True):
        alone = assessor.ask(seen, question, choices)
        assert (answer.choice, answer.index) == (alone.choice, alone.index)
        assert answer.probabilities == pytest.approx(alone.probabilities, abs=1e-5)
        assert sum(answer.probabilities) == pytest.approx(1)
    assert assessor.ask_all(seen, []) == []


def test_boxes_lie_in_the_picture(assessor: Assessor) -> None:
    random = np.random.default_rng(0)
    count = 0
    for size in ((8, 8), (9, 1700), (300, 451), (1000, 90)):
        picture = random.integers(0, 256, (*size, 3), dtype=np.uint8)
        height, width = size
        seen = assessor.encode(picture)
        found = assessor.ground(seen)
        found += assessor.ground(seen, (0, 0, width, height))
        found += assessor.ground(seen, (width - 1, height - 1, width, height))
        found += assessor.locate(seen, "edge ringing effect")
        count += len(found)
        for distortion in found:
            assert distortion.box is not None
            x1, y1, x2, y2 = distortion.box
            assert 0 <= x1 < x2 <= width
            assert 0 <= y1 < y2 <= height
    assert count


def test_streamed_pieces_join_to_the_description(assessor: Assessor, seen: EncodedImage) -> None:
    pieces = list(assessor.describe(seen, stream=True))
    assert "".join(pieces) == assessor.describe(seen).text
    assert len(pieces) > 10


def test_characters_are_streamed_whole(
    assessor: Assessor, seen: EncodedImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes of one character are one piece; half a character at the end comes as U+FFFD."""
    text = "naïve 光 🌄!"
    tokens = BundleTokenizer(assessor.bundle).encode(text)
    for cut in range(len(tokens)):
        kept = tokens[: len(tokens) - cut]

        def write(
            engine: object, replies: list[Reply], drafter: None, kept: list[int] = kept
        ) -> Iterator[None]:
            for token in kept:
                replies[0].tokens.append(token)
                replies[0].done = len(replies[0].tokens) == len(kept)
                yield

        monkeypatch.setattr(assessor_module, "generate", write)
        pieces = list(assessor.describe(seen, stream=True))
        assert "".join(pieces) == BundleTokenizer(assessor.bundle).decode(kept)
        assert not any("\ufffd" in piece for piece in pieces[:-1])


def test_long_answers_end_with_the_context(tiny_bundle_path: Path, tmp_path: Path) -> None:
    """Where the context leaves less room than an answer may take, the answer is cut."""
    small = Assessor(with_prompts(tiny_bundle_path, tmp_path / "small", "nano", 400), threads=1)
    large = Assessor(with_prompts(tiny_bundle_path, tmp_path / "large", "nano", 600), threads=1)
    cut, longer = small.describe(COFFEE).text, large.describe(COFFEE).text
    assert len(cut) < len(longer)
    assert longer.startswith(cut.rstrip("\ufffd"))
    with pytest.raises(RequestError, match="ask a shorter question"):
        small.ask(COFFEE, "Why? " * 100, CHOICES)
    with pytest.raises(RequestError, match="cannot hold"):
        Assessor(with_prompts(tiny_bundle_path, tmp_path / "tiny", "nano", 60)).score(COFFEE)


def test_requests_that_make_no_sense(assessor: Assessor, seen: EncodedImage) -> None:
    for region in ((0, 0, 0, 10), (10, 10, 5, 20), (-1, 0, 5, 5), (0, 0, 601, 5), (0, 0, 5)):
        with pytest.raises(RequestError, match="region"):
            assessor.ground(seen, region)
    with pytest.raises(RequestError, match=r"unknown distortion 'rust'; .* motion blur"):
        assessor.locate(seen, "rust")
    for choices in ([], ["Noise"], [str(i) for i in range(27)]):
        with pytest.raises(RequestError, match=rf"2 to 26 choices .* {len(choices)}"):
            assessor.ask(seen, QUESTION, choices)
    with pytest.raises(RequestError, match="list"):
        assessor.ask(seen, QUESTION, "Noise")
    with pytest.raises(RequestError, match="question is empty"):
        assessor.ask(seen, " ", CHOICES)
    with pytest.raises(ImageError):
        assessor.score(b"")


def test_pictures_stay_with_their_assessor(assessor: Assessor, seen: EncodedImage) -> None:
    other = Assessor(assessor.bundle.path, threads=1)
    for ask in (other.score, other.ground, other.describe, other.assess):
        with pytest.raises(RequestError, match="another Assessor"):
            ask(seen)
    assert other.score(COFFEE) == assessor.score(seen)


def test_names(assessor: Assessor) -> None:
    assert assessor.engine == "onnx:cpu"
    assert assessor.model == assessor.bundle.manifest.name


def test_opening(tiny_bundle_path: Path, tmp_path: Path) -> None:
    assert Assessor.from_pretrained(str(tiny_bundle_path), engine="onnx").model
    with pytest.raises(EngineError, match="abacus"):
        Assessor(tiny_bundle_path, engine="abacus")
    with pytest.raises(BundleError, match="manifest"):
        Assessor(tmp_path)
    for missing in (tmp_path / "none", str(tmp_path / "none"), "a/../b", "none"):
        with pytest.raises(BundleError, match="there is no bundle folder"):
            Assessor.from_pretrained(missing)


def test_a_description_points_at_what_grounding_found() -> None:
    found = [Distortion("Noise", "severe", (0, 0, 500, 500), confidence=0.5)]
    near = Distortion("Noise", "minor", (0, 0, 500, 450))
    far = Distortion("Noise", "minor", (500, 500, 1000, 1000))
    other = Distortion("Motion blur", "minor", (0, 0, 500, 500))
    assert [same_as_found(key, found) for key in (near, far, other)] == [found[0], far, other]
    assert same_as_found(near, []) == near


def test_regions_become_thousandths() -> None:
    assert to_thousandths((0, 0, 600, 400), 600, 400) == (0, 0, 1000, 1000)
    assert to_thousandths([60, 100, 120, 399], 600, 400) == (100, 250, 200, 998)


def test_overlap() -> None:
    assert overlap((0, 0, 10, 10), (0, 0, 10, 10)) == 1
    assert overlap((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 10, 10), (10, 0, 20, 10)) == 0
    assert overlap((0, 0, 0, 10), (0, 0, 0, 10)) == 0
