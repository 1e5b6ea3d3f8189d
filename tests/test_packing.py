"""What is learnt from packed questions, and what it costs."""

from random import Random

import pytest
import torch
from tokenizers import Tokenizer
from torch.nn.functional import cross_entropy

from export.distortions.compose import Truth
from export.pool.appearance import Appearance
from export.supervision.descriptions import full_description
from export.supervision.example import Example
from export.supervision.grounding import detection
from export.training.losses import Losses
from export.training.packing import STOP_WEIGHT, TASK_WEIGHTS, Packer
from idetex_edge.prompts import PromptSet


def test_packed_targets_are_the_answers(
    small_tokenizer: Tokenizer, nano_prompts: PromptSet
) -> None:
    packer = Packer(small_tokenizer, nano_prompts)
    answer = "Noise:\n<|box_start|>(1,2),(30,400)<|box_end|>"
    packed = packer.pack([[Example("grounding", answer)]], rows=2, columns=2)
    ids = small_tokenizer.encode(answer, add_special_tokens=False).ids
    expected = [*ids, small_tokenizer.token_to_id("<|im_end|>")]
    assert packed.targets.tolist() == expected
    inputs = torch.cat([block.ids.flatten() for block in packed.blocks])
    assert inputs[packed.rows[1:]].tolist() == expected[:-1]


def test_answer_loss_is_cross_entropy_with_bells_on_numbers(
    small_tokenizer: Tokenizer, nano_prompts: PromptSet
) -> None:
    packer = Packer(small_tokenizer, nano_prompts)
    packed = packer.pack([[Example("choice", "B", {"question": "x", "options": "y"})]], 2, 2)
    vocabulary = small_tokenizer.get_vocab_size()
    logits = torch.randn(len(packed.targets), vocabulary)
    loss = Losses(packer, vocabulary).answers(logits, packed)
    assert loss == pytest.approx(float(cross_entropy(logits, packed.targets)), rel=1e-5)
    assert packed.option_right.tolist() == [0.0]
    packed = packer.pack([[Example("grounding", "500")]], 2, 2)
    assert float(Losses(packer, vocabulary).options(torch.empty(0), packed)) == 0.0
    sharp = torch.zeros(len(packed.targets), vocabulary)
    sharp[1, packed.targets[1]] = 50.0
    losses: list[float] = []
    for guess in (500, 506, 600):
        sharp[0] = 0.0
        sharp[0, packer.number_ids[guess]] = 4.0
        losses.append(float(Losses(packer, vocabulary).answers(sharp, packed)))
    assert losses[0] < losses[1] < losses[2]


def test_to_say_that_nothing_more_is_wrong_weighs_less(
    small_tokenizer: Tokenizer, nano_prompts: PromptSet
) -> None:
    """At the place where it is decided, and nowhere else."""
    packer = Packer(small_tokenizer, nano_prompts)
    truth = Truth("Noise", "severe", (0, 0, 1000, 400), 0.4, "gaussian")
    looks = Appearance(light=0.5, contrast=0.2, colour=0.1, warmth=0.0, detail=0.02)
    for truths, stop in (([truth], "<|im_end|>"), ([], "N")):
        packed = packer.pack([[detection(truths)]], 2, 2)
        lighter = packed.weights < TASK_WEIGHTS["grounding"]
        assert small_tokenizer.decode(packed.targets[lighter].tolist(), False)[:1] == stop[:1]
    described = full_description([truth], looks, "fair", Random(1))
    (at,) = described.stops
    assert described.answer[at:].startswith("The <|object_ref_start|>severe")
    packed = packer.pack([[described]], 2, 2)
    lighter = packed.weights < TASK_WEIGHTS["description"]
    assert packed.weights[lighter].tolist() == pytest.approx(
        [TASK_WEIGHTS["description"] * STOP_WEIGHT]
    )
    first = int(lighter.nonzero()[0, 0])
    rest = small_tokenizer.decode(packed.targets[first:].tolist(), False)
    assert rest.removesuffix("<|im_end|>") == described.answer[at:]
