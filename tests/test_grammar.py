from __future__ import annotations

import re
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llguidance import LLTokenizer
from tiny import tiny_tokenizer
from tokenizers import Tokenizer

from export.distortions.compose import Truth
from export.student.tokenizer import train_tokenizer
from export.supervision.grounding import grounding_text
from idetex_edge.errors import EngineError
from idetex_edge.grammar import MOST_BOXES, Constraint, grounding_grammar
from idetex_edge.parsing import parse_grounding
from idetex_edge.vocabulary import BOX_SCALE, BOX_START, DISTORTIONS, IM_END, SEVERITIES, box_text

STUDENT = train_tokenizer(
    [f"{kind}: minor moderate severe {kind.lower()}. No distortion" for kind in DISTORTIONS] * 4
)
"""Every number one token and every word another: forced runs are short, choices are few."""

TOKENIZERS = {"bytes": tiny_tokenizer(), "words": STUDENT}
GUIDES = {
    name: LLTokenizer(
        tokenizer.to_str(),
        # A model's vocabulary is often padded beyond its tokenizer's.
        n_vocab=tokenizer.get_vocab_size() + 7,
        eos_token=tokenizer.encode(f"{IM_END}<|endoftext|>").ids,
    )
    for name, tokenizer in TOKENIZERS.items()
}

coordinate = st.integers(0, BOX_SCALE)
truths = st.lists(
    st.builds(
        Truth,
        type=st.sampled_from(DISTORTIONS),
        severity=st.sampled_from(SEVERITIES),
        box=st.tuples(coordinate, coordinate, coordinate, coordinate),
        area=st.floats(0, 1),
        cause=st.just(""),
    ),
    max_size=MOST_BOXES,
)
anyhow = pytest.mark.parametrize("name", TOKENIZERS)


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids


def accepts(name: str, text: str, grammar: str) -> bool:
    """Whether a text may be written token by token, and may end there."""
    constraint = Constraint(GUIDES[name], grammar)
    vocabulary = GUIDES[name].vocab_size
    for token in encode(TOKENIZERS[name], text):
        if constraint.finished or token not in constraint.allowed(vocabulary):
            return False
        constraint.take(token)
    (stop,) = encode(TOKENIZERS[name], IM_END)
    return constraint.finished or stop in constraint.allowed(vocabulary)


@anyhow
@given(truths=truths, separator=st.sampled_from("\n "))
def test_whatever_is_taught_is_allowed(name: str, truths: list[Truth], separator: str) -> None:
    text = grounding_text(truths, separator)
    assert accepts(name, text, grounding_grammar(separator=separator))


@anyhow
@given(truths=truths)
def test_what_is_forced_is_what_training_saw(name: str, truths: list[Truth]) -> None:
    """Forced text is cut into tokens as the whole answer would be."""
    constraint = Constraint(GUIDES[name], grounding_grammar())
    left = encode(TOKENIZERS[name], grounding_text(truths, "\n"))
    skipped = 0
    while left:
        constraint.take(left.pop(0))
        forced = constraint.forced()
        if constraint.finished:
            forced = [token for token in forced if token not in GUIDES[name].eos_tokens]
        assert left[: len(forced)] == forced
        del left[: len(forced)]
        skipped += len(forced)
    assert skipped or not truths


@given(truths=truths, kind=st.sampled_from(DISTORTIONS))
def test_whatever_is_taught_of_one_type_is_allowed(truths: list[Truth], kind: str) -> None:
    text = grounding_text([truth for truth in truths if truth.type == kind], "\n")
    assert accepts("words", text, grounding_grammar((kind,)))
    others = grounding_text([truth for truth in truths if truth.type != kind], "\n")
    if "box" in others:
        assert not accepts("words", others, grounding_grammar((kind,)))


NOISE = f"<|object_ref_start|>Severe noise<|object_ref_end|>{box_text((1, 2, 300, 1000))}"
BLUR = f"<|object_ref_start|>Minor motion blur<|object_ref_end|>{box_text((0, 0, 9, 10))}"


@anyhow
@pytest.mark.parametrize(
    ("text", "separator"),
    [
        (f"Noise:\n{NOISE}.", "\n"),
        (f"Noise:\n{NOISE}\nMotion blur:\n{BLUR}.", "\n"),
        (f"Noise: {NOISE}\nMotion blur: {BLUR}", " "),
        (f"Noise:\n{NOISE}\n{NOISE}", "\n"),
        (f"Noise:\n{NOISE}" + box_text((1, 2, 3, 4)) * 12, "\n"),
        ("No distortion", "\n"),
        ("No distortion affects this region.", " "),
    ],
)
def test_what_vida_trained_models_write_is_allowed(name: str, text: str, separator: str) -> None:
    assert accepts(name, text, grounding_grammar(separator=separator))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Noise",
        "Noise:\n",
        "Rust:\n",
        f"Noise:\n{BLUR}",
        f"Noise:\n{NOISE}\n",
        f"Noise:\n{NOISE}\nNoise:\n{NOISE}",
        f"Noise: {NOISE}",
        f"No distortion\nNoise:\n{NOISE}",
        f"Noise:\n{NOISE.replace('1000', '1001')}",
        f"Noise:\n{NOISE.replace('300', '030')}",
        f"Noise:\n{NOISE.replace('300', '-30')}",
        f"Noise:\n{NOISE}" + box_text((1, 2, 3, 4)) * MOST_BOXES,
    ],
)
def test_what_would_not_parse_or_end_is_refused(text: str) -> None:
    assert not accepts("bytes", text, grounding_grammar())


def walk(name: str, grammar: str, random: Random) -> str:
    """Write any allowed answer; what is forced is forced."""
    constraint = Constraint(GUIDES[name], grammar)
    tokenizer = TOKENIZERS[name]
    stops = set(GUIDES[name].eos_tokens)
    tokens: list[int] = []
    while not constraint.finished:
        token = int(random.choice(constraint.allowed(GUIDES[name].vocab_size)))
        if token in stops:
            break
        constraint.take(token)
        tokens += [token, *constraint.forced()]
    return tokenizer.decode([t for t in tokens if t not in stops], skip_special_tokens=False)


@anyhow
@given(seed=st.integers(0, 2**32), separator=st.sampled_from("\n "))
def test_whatever_is_allowed_parses(name: str, seed: int, separator: str) -> None:
    text = walk(name, grounding_grammar(separator=separator), Random(seed))
    found = parse_grounding(text)
    written = re.findall(r"\((\d+),(\d+)\),\((\d+),(\d+)\)", text)
    assert [d.box_1000 for d in found] == [tuple(map(int, box)) for box in written]
    assert len(found) == text.count(BOX_START)
    assert bool(found) != text.startswith("No distortion")
    headings = re.findall(rf"^(.+?):{separator}", text, re.MULTILINE)
    assert len(set(headings)) == len(headings)
    assert list(dict.fromkeys(d.type for d in found)) == headings
    named = re.findall(r"(Minor|Moderate|Severe) ([a-z ]+)<\|object_ref_end\|>", text)
    assert {(d.severity, d.type) for d in found} == {(s.lower(), t.capitalize()) for s, t in named}


def test_a_token_out_of_place_is_an_error() -> None:
    constraint = Constraint(GUIDES["words"], grounding_grammar())
    with pytest.raises(EngineError, match="grammar") as error:
        constraint.take(encode(STUDENT, BOX_START)[0])
    assert "\n" not in str(error.value)
    with pytest.raises(EngineError, match="grammar"):
        Constraint(GUIDES["words"], "start: nothing")
