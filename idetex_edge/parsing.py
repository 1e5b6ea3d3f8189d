"""From a model's text to distortions, levels and choices: lenient, and never a crash.

Formats are those of ViDA-UGC. Markers may be missing, as they are when a tokenizer drops its
special tokens, and names may vary in case, number and punctuation; what cannot be understood is
left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from idetex_edge.errors import RequestError
from idetex_edge.results import Box, Description, Distortion
from idetex_edge.vocabulary import (
    BOX_END,
    BOX_SCALE,
    BOX_START,
    DISTORTIONS,
    LEVELS,
    OBJECT_REF_END,
    OBJECT_REF_START,
)

_POINT: Final = r"\(\s*(-?[0-9]+)\s*,\s*(-?[0-9]+)\s*\)"
_BOX: Final = re.compile(
    rf"(?:{re.escape(BOX_START)}\s*)?{_POINT}\s*,?\s*{_POINT}(?:\s*{re.escape(BOX_END)})?"
)
_MARKER: Final = re.compile(r"<\|\w+\|>")
_HEADING: Final = re.compile(r"([^:<(]+(?:\([^:<,(]*\)[^:<(]*)?):")
_SEVERITY: Final = re.compile(r"\b(minor|slight|moderate|severe)\b", re.IGNORECASE)
_SEVERITY_NAMES: Final = {"slight": "minor"}
_DEFAULT_SEVERITY: Final = "moderate"
_JOINER: Final = re.compile(r"(?:[\s,;&]|\band\b)*")
_OPENING: Final = re.compile(
    rf"There is (?:one|two|three|[0-9]+) (?:{re.escape(OBJECT_REF_START)})?[^<.]{{0,60}}"
    rf"(?:{re.escape(OBJECT_REF_END)})?\Z"
)
_QUALITY: Final = re.compile(
    r"(?:\bthus,?\s+)?\bthe quality of the image is\s+(\w+)", re.IGNORECASE
)
_FILLERS: Final = {"effect", "distortion"}


def parse_grounding(text: str) -> list[Distortion]:
    """Read a grounding answer: a heading for each type, then severities and boxes.

    Returns distortions in the order of the text, `box` None and `confidence` 1.0. A heading names
    the type of all that stands under it; severities hold until the next. Where none is given it is
    "moderate". Boxes keep the corners as written, clamped to 0..1000; unknown types are left out.
    """
    found: list[Distortion] = []
    heading: str | None = None
    severity: str | None = None
    for line in text.splitlines():
        rest = line
        if match := _HEADING.match(line):
            heading, severity = _read_label(match[1])
            rest = line[match.end() :]
        for kind, graded, box, _ in _read_boxes(rest):
            severity = graded or severity
            if named := heading or kind:
                found.append(_distortion(named, severity, box))
    return found


def parse_description(text: str) -> Description:
    """Read a reasoned description.

    Its `distortions` are those that the text names right in front of their boxes, each once;
    `key_distortions` those of the first sentence of the paragraph before the verdict; `level` is
    the verdict, None without one. Boxes keep the corners as written, clamped to 0..1000.

    As in the challenge's extractor, distortions introduced by "There is one" come first: average
    precision depends on the order.
    """
    openings: list[Distortion] = []
    others: list[Distortion] = []
    for line in text.splitlines():
        for distortion, opens in _described(line):
            (openings if opens else others).append(distortion)
    level, key_sentence = None, ""
    if verdicts := list(_QUALITY.finditer(text)):
        verdict = verdicts[-1]
        level = verdict[1].lower() if verdict[1].lower() in LEVELS else None
        key_sentence = text[summary_start(text) : verdict.start()].split(".")[0]
    return Description(
        text=text,
        distortions=_unique([*openings, *others]),
        key_distortions=_unique(distortion for distortion, _ in _described(key_sentence)),
        level=level,
    )


def summary_start(text: str) -> int:
    """Where in a description the paragraph before the verdict begins; its end where there is none.

    That paragraph says again what was described, as far as it matters most.
    """
    verdicts = list(_QUALITY.finditer(text))
    before = text[: verdicts[-1].start()].rstrip() if verdicts else ""
    if not before:
        return len(text)
    return len(before) - len(before.splitlines()[-1])


def parse_choice(text: str, candidates: Sequence[str]) -> int:
    """Find which candidate a multiple-choice answer means; returns its index, from 0.

    Understood are a letter ("B", "b.", "C. The sky", "Answer: D") and an option's own words. An
    option written out in full goes before a letter. Raises RequestError when nothing matches.
    """
    answer = _MARKER.sub("", text).strip()
    words = _plain(answer)
    plain = [_plain(candidate) for candidate in candidates]
    if words and plain.count(words) == 1:
        return plain.index(words)
    letter = re.match(r"\W*([A-Za-z])(?:\s*[.:)\],*\n]|\W*\Z)", answer) or re.search(
        r"\b(?:answer|option|choice)\b(?:\s+is)?\W+([A-Za-z])\b", answer, re.IGNORECASE
    )
    if letter and (index := ord(letter[1].upper()) - ord("A")) < len(candidates):
        return index
    padded = f" {words} "
    mentioned = [i for i, option in enumerate(plain) if option and f" {option} " in padded]
    if len(mentioned) == 1:
        return mentioned[0]
    raise RequestError(
        f"the answer {' '.join(answer.split())[:80]!r} matches none of the {len(candidates)} "
        "choices; ask again with other words"
    )


def plain_text(text: str) -> str:
    """Take markers and boxes out of a model's text, for people to read."""
    return re.sub(r" {2,}", " ", _MARKER.sub("", _BOX.sub("", text))).strip()


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def _key(name: str) -> str:
    words = (word.removesuffix("s") for word in re.findall(r"[a-z]+", name.lower()))
    return "".join(word for word in words if word not in _FILLERS).replace("colour", "color")


_TYPES: Final = {_key(name): name for name in DISTORTIONS}


def _read_label(label: str) -> tuple[str | None, str | None]:
    """Read (type, severity) from the words in front of a box; each None where not given."""
    if OBJECT_REF_START in label:
        label = label.rpartition(OBJECT_REF_START)[2].partition(OBJECT_REF_END)[0]
    words = _MARKER.sub(" ", label)
    severities = list(_SEVERITY.finditer(words))
    if not severities:
        return _TYPES.get(_key(words)), None
    severity = severities[-1]
    grade = severity[1].lower()
    kind = _TYPES.get(_key(words[severity.end() :])) or _TYPES.get(_key(words[: severity.start()]))
    return kind, _SEVERITY_NAMES.get(grade, grade)


def _read_boxes(line: str) -> Iterator[tuple[str | None, str | None, Box, str]]:
    """Yield each box of a line with the type, severity and words right in front of it.

    Boxes joined by no more than a comma or "and" share what stands in front of the first.
    """
    kind, severity = None, None
    end = 0
    for match in _BOX.finditer(line):
        words = line[end : match.start()]
        end = match.end()
        if not (kind and _JOINER.fullmatch(_MARKER.sub("", words))):
            kind, severity = _read_label(words)
        yield kind, severity, _box(match.groups()), words


def _described(line: str) -> Iterator[tuple[Distortion, bool]]:
    for kind, severity, box, words in _read_boxes(line):
        if kind is not None:
            yield _distortion(kind, severity, box), _OPENING.search(words) is not None


def _distortion(kind: str, severity: str | None, box: Box) -> Distortion:
    return Distortion(kind, severity or _DEFAULT_SEVERITY, box)


def _unique(distortions: Iterable[Distortion]) -> tuple[Distortion, ...]:
    return tuple(dict.fromkeys(distortions))


def _box(numbers: Sequence[str]) -> Box:
    x1, y1, x2, y2 = (_coordinate(number) for number in numbers)
    return x1, y1, x2, y2


def _coordinate(number: str) -> int:
    if number.startswith("-"):
        return 0
    # Five digits tell that it is too large; int() refuses thousands of them.
    return min(int(number.lstrip("0")[:5] or "0"), BOX_SCALE)
