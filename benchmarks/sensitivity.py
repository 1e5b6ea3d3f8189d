"""How the score falls when a picture is spoiled, and further when it is spoiled more.

    python benchmarks/sensitivity.py --photos DIR [--pictures 16] [--bundle BUNDLE] [--json OUT]

Each photograph is spoiled whole, by every cause of every distortion at the middle of its range for
minor, moderate and severe. A row of the table is a distortion: the share of pictures whose score
falls below that of the original, the median fall in points of 100, and the share whose score falls
at every step from original to severe. Photographs are chosen as `build_benchmark.py` does.
"""

from __future__ import annotations

import json
from collections import defaultdict
from statistics import mean, median

from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.spoiled_whole import (
    Out,
    Photos,
    Pictures,
    Seed,
    by_every_cause,
    choose,
    one_by_one,
)
from idetex_edge import Assessor
from idetex_edge.cli.options import BundleName, open_assessor
from idetex_edge.cli.script import run
from idetex_edge.engines import AUTO
from idetex_edge.vocabulary import DISTORTIONS, SEVERITIES


def falls(assessor: Assessor, photograph: Image.Image, seed: int) -> dict[str, list[list[float]]]:
    """Points of 100 the score falls, by distortion: a list a cause, a number a severity."""
    best = assessor.score(photograph).score
    found: dict[str, list[list[float]]] = defaultdict(list)
    for cause, spoiled in by_every_cause(photograph, seed):
        found[cause.distortion].append([best - assessor.score(image).score for image in spoiled])
    return dict(found)


def summarise(series: list[list[float]]) -> dict[str, float]:
    """Of falls (a list a picture and cause, a number a severity) the shares and medians."""
    summary = {"in_order": mean(s[0] > 0 and list(s) == sorted(s) for s in series)}
    for index, severity in enumerate(SEVERITIES):
        column = [s[index] for s in series]
        summary[f"{severity}_share"] = mean(fall > 0 for fall in column)
        summary[f"{severity}_median"] = median(column)
    return {name: round(value, 3) for name, value in summary.items()}


def sensitivity(
    photos: Photos,
    pictures: Pictures = 16,
    bundle: BundleName = None,
    seed: Seed = 1,
    out: Out = None,
) -> None:
    """Measure how the score falls as photographs are spoiled more and more."""
    chosen = choose(photos, pictures, seed)
    assessor = open_assessor(bundle, AUTO, None)
    series: dict[str, list[list[float]]] = defaultdict(list)
    for photograph, own_seed in one_by_one(chosen, seed):
        for distortion, found in falls(assessor, photograph, own_seed).items():
            series[distortion] += found
    summaries = {d: summarise(series[d]) for d in DISTORTIONS if d in series}
    summaries["all"] = summarise([s for found in series.values() for s in found])
    if out is not None:
        out.write_text(json.dumps({"pictures": len(chosen), "falls": summaries}, indent=2) + "\n")
    table = Table(title=f"Score of {len(chosen)} photographs, spoiled", title_justify="left")
    table.add_column("distortion")
    for severity in SEVERITIES:
        table.add_column(f"{severity}: lower, by", justify="right")
    table.add_column("in order", justify="right")
    for name, summary in summaries.items():
        cells = [f"{summary[f'{s}_share']:.0%}  {summary[f'{s}_median']:.1f}" for s in SEVERITIES]
        table.add_row(name, *cells, f"{summary['in_order']:.0%}")
    Console().print(table)


if __name__ == "__main__":
    run(sensitivity)
