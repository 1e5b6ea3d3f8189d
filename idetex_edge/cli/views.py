"""Results as a person wants to see them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from idetex_edge.overlay import COLOURS
from idetex_edge.results import Answer, Assessment, Box, Distortion
from idetex_edge.vocabulary import BOX_END, BOX_START

_LEVEL_COLOURS: Final = {
    "bad": "red",
    "poor": "dark_orange",
    "fair": "yellow",
    "good": "green",
    "excellent": "bright_green",
}
_GAUGE: Final = 24
_MARKER: Final = re.compile(r"(<\|\w+\|>)")


def heading(path: str, size: tuple[int, int]) -> Text:
    """A picture's path and size."""
    width, height = size
    measures = (f"  {width} x {height}", "dim")
    return Text.assemble((_printable(path), "bold"), measures, overflow="fold")


def score_line(path: str, score: float, level: str) -> Text:
    """A picture's score on one line."""
    return Text.assemble(
        (f"{score:5.1f}  {level:<9}", _LEVEL_COLOURS[level]), f"  {_printable(path)}", no_wrap=True
    )


def assessment_view(
    path: str, assessment: Assessment, engine: str, overlay: Path | None
) -> RenderableType:
    """Everything about one picture; `overlay` is where its overlay was written."""
    footer = f"{assessment.model} on {engine}, {assessment.timings['total']:.0f} ms"
    if overlay is not None:
        footer += f", overlay in {_printable(str(overlay))}"
    body = Group(
        _gauge(assessment),
        "",
        distortion_table(assessment.distortions, assessment.key_distortions),
        "",
        Text(_printable(assessment.description)),
        "",
        Text(footer, "dim", overflow="fold"),
    )
    return Group(
        heading(path, (assessment.width, assessment.height)),
        Padding(body, (0, 0, 1, 2), expand=False),
    )


def distortions_view(
    path: str, size: tuple[int, int], distortions: Sequence[Distortion]
) -> RenderableType:
    """What was found in one picture."""
    return Group(
        heading(path, size), Padding(distortion_table(distortions), (0, 0, 1, 2), expand=False)
    )


def answer_view(path: str, choices: Sequence[str], answer: Answer) -> RenderableType:
    """The choices of a question, the one chosen marked, with their probabilities."""
    table = Table.grid(padding=(0, 2))
    for index, (choice, probability) in enumerate(zip(choices, answer.probabilities, strict=True)):
        chosen = index == answer.index
        style = "bold green" if chosen else ""
        table.add_row(
            Text("→" if chosen else " ", style), Text(choice, style), Text(_percent(probability))
        )
    return Group(
        Text(_printable(path), "bold", overflow="fold"), Padding(table, (0, 0, 1, 2), expand=False)
    )


def said_view(path: str, said: str) -> RenderableType:
    """An open question's answer."""
    return Group(Text(_printable(path), "bold", overflow="fold"), Text(f"  {_printable(said)}"))


def distortion_table(
    distortions: Sequence[Distortion], key_distortions: Sequence[Distortion] = ()
) -> RenderableType:
    """Distortions with their boxes in pixels; those that matter most carry a star."""
    if not distortions:
        return Text("No distortion found.", "green")
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for name in ("distortion", "severity", "box"):
        table.add_column(name)
    table.add_column("sure", justify="right")
    for found in distortions:
        star = " *" if found in key_distortions else ""
        table.add_row(
            Text.assemble(_dot(found.type), f" {found.type}{star}"),
            found.severity,
            box_text(found.box),
            _percent(found.confidence),
        )
    if not any(found in key_distortions for found in distortions):
        return table
    return Group(table, Text("* matters most", "dim"))


def box_text(box: Box | None) -> str:
    """The corners of a box in pixels."""
    return "" if box is None else "{}, {} to {}, {}".format(*box)


def facts_table(facts: Mapping[str, str]) -> Table:
    """Names and what they stand for, a line each."""
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, Text(_printable(value)))
    return table


def readable(pieces: Iterable[str]) -> Iterator[str]:
    """A streamed text without its markers and boxes."""
    in_box = False
    for piece in pieces:
        for part in _MARKER.split(piece):
            if part in (BOX_START, BOX_END):
                in_box = part == BOX_START
            elif part and not in_box and not _MARKER.fullmatch(part):
                yield _printable(part)


def _gauge(assessment: Assessment) -> Text:
    colour = _LEVEL_COLOURS[assessment.level]
    filled = round(assessment.score / 100 * _GAUGE)
    shares = ", ".join(
        f"{level} {_percent(share)}" for level, share in assessment.level_probabilities.items()
    )
    return Text.assemble(
        (f"{assessment.score:.1f}", f"bold {colour}"),
        (" / 100  ", "dim"),
        ("━" * filled, colour),
        ("─" * (_GAUGE - filled), "bright_black"),
        (f"  {assessment.level}", f"bold {colour}"),
        (f"\n{shares}", "dim"),
    )


def _dot(kind: str) -> tuple[str, str]:
    red, green, blue = COLOURS[kind]
    return "■", f"rgb({red},{green},{blue})"


def _percent(share: float) -> str:
    return f"{share:.0%}"


def _printable(text: str) -> str:
    """Write out what no terminal should be sent: control characters, halves of characters."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)
