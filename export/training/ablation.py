"""What each part of the recipe is worth: the same stage, the same minutes, one part left out."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from tokenizers import Tokenizer

from export.recipe import POOL_PARTS, Recipe, recipe_without
from export.training.language_stage import train_language
from export.training.stages import LANGUAGE, READING, Material
from export.training.train import make_checks, scored_examples
from export.training.vision_stage import train_vision
from export.training.watching import read_log
from idetex_edge.errors import ExportError
from idetex_edge.prompts import PromptSet
from idetex_edge.vocabulary import DISTORTIONS

_COMMON: Final = ("mirroring", "redrawing", "rephrasing", "shortening", "mixing", "pointing")
PARTS_OF: Final[Mapping[str, Sequence[str]]] = {
    "vision": ("mirroring", "photographs", "teaching"),
    "reading": (*_COMMON, "doubt", "teaching"),
    "language": (*_COMMON, "photographs", "evidence", "teaching"),
}
"""The parts that each stage has, but for those that make the pool."""

_LANGUAGE_STAGES: Final = {"reading": READING, "language": LANGUAGE}

WHOLE_NAME: Final = "whole"
TABLE: Final = "ablation.json"

Checked = Mapping[str, Mapping[str, float]]
"""A validation: figures by pool and name."""


def parts_of(stage: str, chosen: Sequence[str] = (), taught: bool = False) -> list[str]:
    """The parts that a stage has, or those chosen of them; raises ExportError for others.

    `taught`: whether there is a teacher.
    """
    if stage not in PARTS_OF:
        raise ExportError(f"unknown stage {stage!r}; it is one of {', '.join(PARTS_OF)}")
    recipe_without(chosen)
    for part in chosen:
        if part in POOL_PARTS:
            raise ExportError(f"{part!r} makes the pool; train a pool without it to see its worth")
        if part not in PARTS_OF[stage]:
            having = " and ".join(name for name, parts in PARTS_OF.items() if part in parts)
            raise ExportError(f"the {stage} stage has no part {part!r}; it is one of {having}")
    if "teaching" in chosen and not taught:
        raise ExportError("what teaching is worth needs a teacher; give --teacher CHECKPOINT")
    return list(chosen) or [part for part in PARTS_OF[stage] if taught or part != "teaching"]


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
    teacher: Path | None,
    advance: Callable[[str, int, int], None],
) -> dict[str, Checked]:
    """Train a stage for so many minutes with the whole recipe, and without each of `parts`.

    `model` is a checkpoint folder whose tokenizer and prompts are used, `photos` a folder with a
    SOURCES.tsv, `pool` the spoiled pictures to learn from. Vision and reading begin with fresh
    weights, language with `vision.pt` and `reading.pt` of the run folder `begin`. The checkpoint
    folder `teacher` may teach (`teaching.py`). Returns each variant's last
    validation, and writes them to `run`/ablation.json after every variant; one that is done
    is not trained again. Raises ExportError for unknown names.
    """
    chosen = parts_of(stage, parts, taught=teacher is not None)
    if stage == "language" and begin is None:
        raise ExportError("the language stage begins with a run's towers; give --begin RUN")
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    prompts = PromptSet.from_dict(json.loads((model / "prompts.json").read_text()))
    real, scored = (scored_examples(photos, held_out) for held_out in (False, True))
    checks = make_checks(photos, run)
    material = Material(tokenizer, prompts, pool, real, checks, scored)

    def train(folder: Path, recipe: Recipe) -> Checked:
        if stage == "vision":
            train_vision(preset, material, folder, minutes, None, teacher, recipe)
            return read_log(folder, stage)[-1]["checks"]
        described = _LANGUAGE_STAGES[stage]
        train_language(described, preset, material, folder, minutes, None, teacher, recipe)
        return read_log(folder, described.name)[-1]["checks"]

    found: dict[str, Checked] = {}
    variants = (WHOLE_NAME, *chosen)
    for number, name in enumerate(variants):
        advance("variants trained", number, len(variants))
        folder = run / name
        folder.mkdir(parents=True, exist_ok=True)
        if stage == "language" and begin:
            for file in ("vision.pt", "reading.pt"):
                if not (folder / file).exists():
                    (folder / file).symlink_to((begin / file).resolve())
        found[name] = train(folder, recipe_without(() if name == WHOLE_NAME else (name,)))
        table = {"stage": stage, "minutes": minutes, "variants": found}
        (run / TABLE).write_text(json.dumps(table, indent=1) + "\n")
    advance("variants trained", len(variants), len(variants))
    return found


def markdown(found: Mapping[str, Checked]) -> str:
    """A table of validations: a line a variant, a column a figure; beside it what was lost.

    Figures of single distortions are left to the file.
    """
    whole = found[WHOLE_NAME]
    names = [(p, figure) for p in whole for figure in whole[p] if figure not in DISTORTIONS]
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
