"""A table at a glance: one HTML file with everything in it."""

from __future__ import annotations

import base64
import heapq
import html
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Final

from idetex_edge.batch.rows import Row, distortions_of
from idetex_edge.errors import IdetexError
from idetex_edge.image import load_image
from idetex_edge.overlay import COLOURS, draw_overlay
from idetex_edge.vocabulary import DISTORTIONS, SEVERITIES
from idetex_edge.whole import whole_file

WORST: Final = 12
"""Pictures shown, those of the lowest scores."""

_BINS: Final = 20
_SIDE: Final = 640
_FAILURES: Final = 50
_STYLE: Final = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
svg { width: 100%; height: auto; max-width: 48rem; } svg text { fill: currentColor; }
.worst { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(18rem, 1fr)); }
figure { margin: 0; } img { width: 100%; height: auto; } figcaption { overflow-wrap: anywhere; }
table { border-collapse: collapse; } th, td { text-align: left; padding: .2rem 1rem .2rem 0; }
td.number { text-align: right; } li { overflow-wrap: anywhere; }
"""


def write_report(path: Path, rows: Iterable[Row], made_with: Mapping[str, str]) -> None:
    """Write a report on a table's rows: scores, distortions, the worst pictures, failures.

    Worst pictures are read again to be shown with what was found in them. Raises OutputError when
    the file cannot be written.
    """
    scores = [0] * _BINS
    counts: Counter[tuple[str, str]] = Counter()
    worst: list[tuple[float, int, Row]] = []
    failures: list[Row] = []
    failed = total = 0
    for number, row in enumerate(rows):
        if row["error"] is not None:
            failed += 1
            failures += [row] if failed <= _FAILURES else []
            continue
        total += 1
        scores[min(int(row["score"] / 100 * _BINS), _BINS - 1)] += 1
        counts.update({(d["type"], d["severity"]): 1 for d in row["distortions"]}.keys())
        # The number keeps rows of equal score from being compared.
        heapq.heappush(worst, (-row["score"], -number, row))
        if len(worst) > WORST:
            heapq.heappop(worst)
    shown = [row for _, _, row in sorted(worst, reverse=True, key=lambda item: item[:2])]
    parts = [
        f"<h1>{total + failed} pictures, {failed} failed</h1>",
        f"<p>{html.escape(', '.join(f'{name} {made_with[name]}' for name in made_with))}</p>",
        "<h2>Scores</h2>",
        _histogram(scores),
        "<h2>Pictures with each distortion</h2>",
        _counts(counts),
        f"<h2>The {len(shown)} worst</h2>",
        '<div class="worst">',
        *(_figure(row) for row in shown),
        "</div>",
        *(_failures(failures, failed) if failed else ()),
    ]
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width, initial-scale=1"><title>idetex-edge report</title>'
        f"<style>{_STYLE}</style>{''.join(parts)}</html>\n"
    )
    with whole_file(path) as place:
        place.write_text(page, encoding="utf-8")


def _histogram(scores: Sequence[int]) -> str:
    highest, width = max(*scores, 1), 100 / _BINS
    bars = "".join(
        f'<rect x="{i * width + 0.3:.2f}" y="{30 - 28 * count / highest:.2f}" '
        f'width="{width - 0.6:.2f}" height="{28 * count / highest:.2f}" fill="#3f90da">'
        f"<title>{i * width:g} to {(i + 1) * width:g}: {count}</title></rect>"
        for i, count in enumerate(scores)
    )
    labels = "".join(
        f'<text x="{x}" y="34" font-size="3" text-anchor="middle">{x}</text>'
        for x in range(0, 101, 20)
    )
    words = ", ".join(f"{i * width:g}: {count}" for i, count in enumerate(scores) if count)
    return (
        f'<svg viewBox="-3 0 107 36" role="img" aria-label="Pictures by score: {words}">'
        f"{bars}{labels}</svg>"
    )


def _counts(counts: Mapping[tuple[str, str], int]) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in ("distortion", *SEVERITIES))
    rows = "".join(
        f'<tr><th scope="row"><span style="color:rgb{COLOURS[kind]}">■</span> {kind}</th>'
        + "".join(
            f'<td class="number">{counts.get((kind, severity), 0)}</td>' for severity in SEVERITIES
        )
        + "</tr>"
        for kind in DISTORTIONS
    )
    return f"<table><tr>{head}</tr>{rows}</table>"


def _figure(row: Row) -> str:
    caption = html.escape(f"{row['score']:.1f} {row['level']}  {row['path']}")
    try:
        picture = load_image(row["path"])
    except IdetexError as error:
        return f"<figure><figcaption>{caption}: {html.escape(str(error))}</figcaption></figure>"
    overlay = draw_overlay(picture, distortions_of(row), score=row["score"], level=row["level"])
    overlay.thumbnail((_SIDE, _SIDE))
    file = BytesIO()
    overlay.save(file, "JPEG", quality=85)
    encoded = base64.b64encode(file.getvalue()).decode()
    return (
        f'<figure><img src="data:image/jpeg;base64,{encoded}" alt="{html.escape(_words(row))}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _words(row: Row) -> str:
    found = ", ".join(f"{d.severity} {d.type.lower()}" for d in distortions_of(row))
    return f"With {found}" if found else "No distortion found"


def _failures(rows: Sequence[Row], failed: int) -> list[str]:
    items = "".join(f"<li>{html.escape(row['error'])}</li>" for row in rows)
    return [f"<h2>{failed} failed; the first of them:</h2>", f"<ul>{items}</ul>"]
