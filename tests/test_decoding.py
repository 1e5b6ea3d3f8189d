from __future__ import annotations

import numpy as np
import pytest
from llguidance import LLTokenizer
from random_engine import Counted, RandomEngine
from tiny import tiny_tokenizer

from idetex_edge.confidence import box_confidences
from idetex_edge.decoding import Reply, feed, finish, generate
from idetex_edge.engines import Engine
from idetex_edge.engines.protocol import Floats
from idetex_edge.errors import EngineError
from idetex_edge.grammar import Constraint, grounding_grammar
from idetex_edge.parsing import parse_grounding
from idetex_edge.vocabulary import BOX_SCALE, DISTORTIONS, IM_END

TOKENIZER = tiny_tokenizer()
(STOP,) = TOKENIZER.encode(IM_END).ids
GUIDE = LLTokenizer(TOKENIZER.to_str(), eos_token=STOP)
VOCABULARY = TOKENIZER.get_vocab_size()


def decode(tokens: list[int]) -> str:
    return TOKENIZER.decode(tokens, skip_special_tokens=False)


def prompts() -> list[list[int]]:
    return [TOKENIZER.encode(text).ids for text in ("How good?", "Where is it bad, and why?", "!")]


def started(engine: Engine, prompt: list[int], *, limit: int, constrained: bool) -> Reply:
    sequence = engine.start(64)
    logits = feed(engine, sequence, prompt)
    constraint = Constraint(GUIDE, grounding_grammar()) if constrained else None
    return Reply(sequence, logits, frozenset({STOP}), limit, constraint)


@pytest.mark.parametrize("spread", [0.0, 1.0, 30.0])
@pytest.mark.parametrize("limit", [1, 50, 4000])
def test_grounding_by_a_model_of_noise_parses(spread: float, limit: int) -> None:
    """However unsure or sure, and wherever the limit cuts the answer off."""
    boxes = 0
    for seed in range(8):
        engine = RandomEngine(VOCABULARY, seed, spread)
        reply = started(engine, [1], limit=limit, constrained=True)
        finish(engine, [reply])
        found = parse_grounding(decode(reply.tokens))
        confidences = box_confidences([decode([t]) for t in reply.tokens], reply.probabilities)
        assert len(found) == len(confidences)
        assert all(0 <= confidence <= 1 for confidence in confidences)
        assert all(0 <= corner <= BOX_SCALE for d in found for corner in d.box_1000)
        assert len(reply.probabilities) == len(reply.tokens)
        boxes += len(found)
    assert boxes or limit < 4000


def test_a_choice_is_as_likely_as_among_what_is_allowed() -> None:
    """Forced tokens are certain, whatever the model thinks of them."""
    reply = started(RandomEngine(VOCABULARY, 0), [1], limit=50, constrained=True)
    first = {TOKENIZER.encode(kind[0]).ids[0] for kind in DISTORTIONS}
    letter = {TOKENIZER.decode([token]): token for token in first}
    reply.logits[:] = 50
    reply.logits[list(first)] = 0
    reply.logits[letter["L"]] = np.log(3)
    run = reply.choose()
    assert decode(run) == "Low clarity:\n<|object_ref_start|>"
    # B, E, L, M, N, O and U begin the types.
    assert reply.probabilities == pytest.approx([3 / 9, *[1.0] * (len(run) - 1)])


def test_one_long_answer_is_cut_at_its_limit() -> None:
    engine = RandomEngine(VOCABULARY, 0)
    reply = started(engine, [1], limit=7, constrained=False)
    for steps, _ in enumerate(generate(engine, [reply]), start=1):
        assert len(reply.tokens) == steps
    assert len(reply.tokens) == 7
    # The last token was not fed: nothing would be read behind it.
    assert reply.sequence.length == 1 + 6


@pytest.mark.parametrize("constrained", [True, False])
def test_an_answer_ends_at_the_stop_token(constrained: bool) -> None:
    engine = RandomEngine(VOCABULARY, 0)
    reply = started(engine, [1], limit=50, constrained=constrained)
    if constrained:
        while not parse_grounding(decode(reply.tokens)):
            reply.choose()
    before = list(reply.tokens)
    reply.logits = np.where(np.arange(VOCABULARY) == STOP, 1, 0).astype(np.float32)
    assert reply.choose() == []
    assert reply.done
    assert reply.tokens == before


def test_forced_runs_give_what_single_steps_give(tiny_engine: Engine) -> None:
    reply = started(tiny_engine, prompts()[0], limit=200, constrained=True)
    seen: dict[int, Floats] = {}
    for _ in generate(tiny_engine, [reply]):
        if not reply.done:
            seen[len(reply.tokens)] = reply.logits
    assert len(seen) < len(reply.tokens) / 2
    slowly = tiny_engine.start(64)
    feed(tiny_engine, slowly, prompts()[0])
    for count, token in enumerate(reply.tokens, start=1):
        logits = tiny_engine.decode([slowly], [token])[0]
        if count in seen:
            np.testing.assert_allclose(seen[count], logits, rtol=0, atol=2e-5)


def test_a_batch_gives_what_each_alone_gives(tiny_engine: Engine) -> None:
    def replies() -> list[Reply]:
        return [
            started(tiny_engine, prompt, limit=limit, constrained=constrained)
            for prompt in prompts()
            for constrained, limit in ((True, 120), (False, 30))
        ]

    together, alone = replies(), replies()
    finish(tiny_engine, together)
    for one, other in zip(together, alone, strict=True):
        finish(tiny_engine, [other])
        assert one.tokens == other.tokens
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)
    assert any(reply.probabilities for reply in together)
    assert len({tuple(reply.tokens) for reply in together}) > 2


@pytest.mark.parametrize("constrained", [True, False])
def test_numbers_that_overflowed_are_an_error(constrained: bool) -> None:
    engine = RandomEngine(VOCABULARY, 0)
    reply = started(engine, [1], limit=5, constrained=constrained)
    for wrong in (np.nan, np.inf):
        reply.logits = np.full(VOCABULARY, wrong, np.float32)
        with pytest.raises(EngineError, match="overflowed"):
            reply.choose()


def test_text_takes_the_positions_behind_a_prompt() -> None:
    class Watching(RandomEngine):
        def extend(self, sequence: object, embeddings: Floats, positions: object) -> Floats:
            self.positions = positions
            return self.logits()

    engine = Watching(VOCABULARY, 0)
    feed(engine, Counted(5), [1, 2, 3])
    np.testing.assert_array_equal(engine.positions, [[5, 6, 7]] * 3)
