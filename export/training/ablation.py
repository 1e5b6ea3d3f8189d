"""What each part of the recipe is worth: the same stage, the same minutes, one part left out."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer

from export.recipe import PARTS, POOL_PARTS, recipe_without
from export.training.language_stage import LANGUAGE, READING, Stage, train_language
from export.training.train import make_checks, scored_examples
from export.training.watching import read_log
from idetex_edge.errors import ExportError
from idetex_edge.prompts import PromptSet

STAGES: Final[Mapping[str, Stage]] = {"reading": READING, "language": LANGUAGE}
ONLY_IN: Final[Mapping[str, str]] = {
    "doubt": "reading",
    "photographs": "language",
    "evidence": "language",
}
"""Parts that one stage alone has."""

WHOLE_NAME: Final = "whole"
TABLE: Final = "ablation.json"

Checked = Mapping[str, Mapping[str, float]]
"""A validation: figures by pool and name."""


def parts_of(stage: str, chosen: Sequence[str] = ()) -> list[str]:
    """The parts that a stage has, or those chosen of them; raises ExportError for others."""
    if stage not in STAGES:
        raise ExportError(f"unknown stage {stage!r}; it is one of {', '.join(STAGES)}")
    recipe_without(chosen)
    for part in chosen:
        if part in POOL_PARTS:
            raise ExportError(f"{part!r} makes the pool; train a pool without it to see its worth")
        if ONLY_IN.get(part, stage) != stage:
            raise ExportError(f"the {stage} stage has no part {part!r}; only {ONLY_IN[part]} has")
    known = [p for p in PARTS if p not in POOL_PARTS and ONLY_IN.get(p, stage) == stage]
    return list(chosen) or known


def ablate(
    stage: str,
    preset: str,
    model: Path,
    photos: Path,
    pool: Path,
    run: Path,
    minutes: float,
    parts: Sequence[str],
    begin: Path | None,
    advance: Callable[[str, int, int], None],
) -> dict[str, dict[str, Any]]:
    """Train a stage for so many minutes with the whole recipe, and without each of `parts`.

    `model` is a checkpoint folder whose tokenizer and prompts are used, `photos` a folder with a
    SOURCES.tsv, `pool` the spoiled pictures to learn from. Reading begins with fresh weights,
    language with `vision.pt` and `reading.pt` of the run folder `begin`. Returns each variant's
    last validation, and writes them to `run`/ablation.json after every variant; one that is done
    is not trained again. Raises ExportError for unknown names.
    """
    chosen = parts_of(stage, parts)
    if STAGES[stage].sees and begin is None:
        raise ExportError("the language stage begins with a run's towers; give --begin RUN")
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    prompts = PromptSet.from_dict(json.loads((model / "prompts.json").read_text()))
    real, scored = (scored_examples(photos, held_out) for held_out in (False, True))
    checks = make_checks(photos, run)
    found: dict[str, dict[str, Any]] = {}
    variants = (WHOLE_NAME, *chosen)
    for number, name in enumerate(variants):
        advance("variants trained", number, len(variants))
        folder = run / name
        folder.mkdir(parents=True, exist_ok=True)
        if STAGES[stage].sees and begin:
            for file in ("vision.pt", "reading.pt"):
                if not (folder / file).exists():
                    (folder / file).symlink_to((begin / file).resolve())
        recipe = recipe_without(() if name == WHOLE_NAME else (name,))
        data = (pool, real, scored, checks, folder, minutes)
        train_language(STAGES[stage], preset, tokenizer, prompts, *data, recipe=recipe)
        found[name] = read_log(folder, STAGES[stage].name)[-1]["checks"]
        table = {"stage": stage, "minutes": minutes, "variants": found}
        (run / TABLE).write_text(json.dumps(table, indent=1) + "\n")
    advance("variants trained", len(variants), len(variants))
    return found


def markdown(found: Mapping[str, Checked]) -> str:
    """A table of validations: a line a variant, a column a figure; beside it what was lost."""
    whole = found[WHOLE_NAME]
    names = [(pool, figure) for pool in whole for figure in whole[pool]]
    lines = [
        ["without", *(f"{pool} {figure}" for pool, figure in names)],
        ["---"] * (len(names) + 1),
    ]
    for variant, checked in found.items():
        values = [(checked[pool][figure], whole[pool][figure]) for pool, figure in names]
        if variant == WHOLE_NAME:
            lines.append(["nothing", *(f"{value:.3f}" for value, _ in values)])
        else:
            lines.append([variant, *(f"{v:.3f} ({v - base:+.3f})" for v, base in values)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
