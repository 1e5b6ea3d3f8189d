"""What can be asked about a picture, as requests to the model: checked, and ready to be put."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from idetex_edge.errors import RequestError
from idetex_edge.grammar import grounding_grammar
from idetex_edge.prompts import options_text
from idetex_edge.results import Box
from idetex_edge.tokenizer import LETTERS
from idetex_edge.vocabulary import DISTORTIONS, box_text

GROUNDING_LIMIT: Final = 384
DESCRIPTION_LIMIT: Final = 1024
SENTENCE_LIMIT: Final = 128
"""The most tokens an answer may have; those of ViDA-trained models have up to 300 and 670."""


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt to be answered.

    task, fields: the prompt of the bundle's set and what fills it in. limit: the most tokens of
    the answer, 0 where it is read from the prompt's last logits. grammar: what the answer must
    follow, None for free text.
    """

    task: str
    fields: Mapping[str, str]
    limit: int = 0
    grammar: str | None = None


SCORE: Final = Request("score", {})
GROUNDING: Final = Request("grounding", {}, GROUNDING_LIMIT, grounding_grammar())
DESCRIPTION: Final = Request("description", {}, DESCRIPTION_LIMIT)


def question_request(question: str) -> Request:
    """Put an open question, to be answered in words; raises RequestError where it is empty."""
    return Request("question", {"question": _asked(question)}, SENTENCE_LIMIT)


def single_request(distortion: str) -> Request:
    """Ask to assess one type of distortion; raises RequestError when there is no such type."""
    return Request("single", {"distortion": _type_of(distortion).lower()}, GROUNDING_LIMIT)


def region_request(box_1000: Box) -> Request:
    """Ask what is wrong inside a 0..1000 box."""
    fields = {"region": box_text(box_1000)}
    return Request("region", fields, GROUNDING_LIMIT, grounding_grammar(separator=" "))


def locate_request(distortion: str) -> Request:
    """Ask where one type of distortion is; raises RequestError when there is no such type."""
    kind = _type_of(distortion)
    fields = {"distortion": kind.lower()}
    return Request("locate", fields, GROUNDING_LIMIT, grounding_grammar((kind,)))


def choice_request(question: str, choices: Sequence[str]) -> Request:
    """Put a multiple-choice question.

    Raises RequestError without a question, with fewer than two choices, or with over 26.
    """
    asked = _asked(question)
    if isinstance(choices, str):
        raise RequestError(f"the choices are one text, {choices!r}; give a list of them")
    if not 2 <= len(choices) <= len(LETTERS):
        raise RequestError(
            f"a question needs 2 to {len(LETTERS)} choices to choose from, not {len(choices)}"
        )
    return Request("choice", {"question": asked, "options": options_text(choices)})


def _asked(question: str) -> str:
    if not question.strip():
        raise RequestError("the question is empty; ask something")
    return question


def _type_of(distortion: str) -> str:
    names = {name.lower(): name for name in DISTORTIONS}
    kind = names.get(" ".join(distortion.lower().split()))
    if kind is None:
        raise RequestError(
            f"unknown distortion {distortion!r}; it must be one of {', '.join(names)}"
        )
    return kind
