"""What each part of the recipe is worth: the same stage, the same minutes, one part left out."""

import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tokenizers import Tokenizer

from export.recipe import POOL_PARTS, recipe_without
from export.training.language_stage import train_language
from export.training.stages import LANGUAGE, READING, Material
from export.training.team import Team, train_apart
from export.training.train import make_checks, material_of
from export.training.unfolding import start_of
from export.training.vision_stage import train_vision
from export.training.watching import read_log
from idetex_edge.errors import ExportError
from idetex_edge.prompts import PromptSet
from idetex_edge.vocabulary import DISTORTIONS

_COMMON: Final = ("mirroring", "redrawing", "rephrasing", "shortening", "mixing", "pointing")
PARTS_OF: Final[Mapping[str, Sequence[str]]] = {
    "vision": ("mirroring", "photographs", "labels", "teaching"),
    "reading": (*_COMMON, "doubt", "teaching"),
    "language": (*_COMMON, "photographs", "labels", "evidence", "teaching"),
}
"""The parts that each stage has, but for those that make the pool."""

_NEEDED: Final = {
    "teaching": "a teacher; give --teacher CHECKPOINT",
    "labels": "labels; give --vida FOLDER",
}
"""What parts need that is not there by itself."""

_LANGUAGE_STAGES: Final = {"reading": READING, "language": LANGUAGE}

WHOLE_NAME: Final = "whole"
TABLE: Final = "ablation.json"
_GIVEN: Final = "given.json"

Checked = Mapping[str, Mapping[str, float]]
"""A validation: figures by pool and name."""


def parts_of(stage: str, chosen: Sequence[str] = (), given: Collection[str] = ()) -> list[str]:
    """The parts that a stage has, or those chosen of them; raises ExportError for others.

    `given`: those of `_NEEDED` for which there is what they need, all of them parts of the stage.
    """
    if stage not in PARTS_OF:
        raise ExportError(f"unknown stage {stage!r}; it is one of {', '.join(PARTS_OF)}")
    recipe_without(chosen)
    for part in (*chosen, *given):
        if part in POOL_PARTS:
            raise ExportError(f"{part!r} makes the pool; train a pool without it to see its worth")
        if part not in PARTS_OF[stage]:
            having = " and ".join(name for name, parts in PARTS_OF.items() if part in parts)
            raise ExportError(f"the {stage} stage has no part {part!r}; it belongs to {having}")
    missing = _NEEDED.keys() - set(given)
    for part in sorted(missing & set(chosen)):
        raise ExportError(f"what {part} is worth needs {_NEEDED[part]}")
    return list(dict.fromkeys(chosen)) or [p for p in PARTS_OF[stage] if p not in missing]


@dataclass(frozen=True, slots=True)
class Setting:
    """What every variant has in common: so many minutes of one core's time for a stage.

    preset: which model; start: weights to begin with (`unfolding.write_start`), or None for fresh
    ones; teacher: a checkpoint folder that may teach.
    """

    stage: str
    preset: str
    material: Material
    minutes: float
    start: Path | None = None
    teacher: Path | None = None

    def train(self, without: str, folder: Path) -> None:
        """Train a variant in a folder, or what is left of it.

        Time is the process's own, so that variants may run side by side and beside other work.
        """
        folder.mkdir(parents=True, exist_ok=True)
        recipe = recipe_without(() if without == WHOLE_NAME else (without,))
        where = (self.preset, self.material, folder, self.minutes)
        common = (*where, self.start, self.teacher, recipe, time.process_time)
        if self.stage == "vision":
            train_vision(*common)
        else:
            train_language(_LANGUAGE_STAGES[self.stage], *common)

    def checked(self, folder: Path) -> Checked:
        """The last validation of a variant that was trained in a folder."""
        described = _LANGUAGE_STAGES.get(self.stage)
        return read_log(folder, described.name if described else self.stage)[-1]["checks"]


def ablate(
    stage: str,
    preset: str,
    model: Path,
    photos: Path,
    pool: Path,
    run: Path,
    minutes: float,
    parts: Sequence[str],
    trained: bool,
    teacher: Path | None,
    vida: Path | None,
    processes: int,
    advance: Callable[[str, int, int], None],
) -> dict[str, Checked]:
    """Train a stage with the whole recipe, and without each of `parts`, each for equal time.

    `model` is a checkpoint folder whose tokenizer and prompts are used, and, where `trained`, its
    weights to begin with; `photos` a folder with a SOURCES.tsv, `pool` the spoiled pictures to
    learn from, `vida` a folder of labelled ones (`export.supervision.vida`); for the rest see
    `Setting`. So many `processes` train a variant each, side by side. Returns each variant's last
    validation, and writes them to `run`/ablation.json after every variant; one that is done is not
    trained again. Raises ExportError for unknown names, for a `teacher` or `vida` that
    the stage has no use for, and where `run` has variants of something else.
    """
    given = [p for p, needed in (("teaching", teacher), ("labels", vida)) if needed]
    variants = (WHOLE_NAME, *parts_of(stage, parts, given))
    if stage == "language" and not trained:
        raise ExportError("the language stage joins what has learnt already; give --trained")
    _require_same(
        run,
        {
            "stage": stage,
            "preset": preset,
            "model": str(model.resolve()),
            "pool": str(pool.resolve()),
            "trained": trained,
            "teacher": str(teacher.resolve()) if teacher else None,
            "vida": str(vida.resolve()) if vida else None,
        },
    )
    advance("variants trained", 0, len(variants))
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    prompts = PromptSet.from_dict(json.loads((model / "prompts.json").read_text()))
    material = material_of(tokenizer, prompts, pool, make_checks(photos, run), photos, vida)
    start = start_of(run, preset, tokenizer, model, pool) if trained else None
    setting = Setting(stage, preset, material, minutes, start, teacher)
    found: dict[str, Checked] = {}
    team = ThreadPoolExecutor(processes)
    try:
        pending = {
            team.submit(train_apart, Team(1, setting.train, (name, run / name))): name
            for name in variants
        }
        for number, done in enumerate(as_completed(pending), 1):
            done.result()
            found[pending[done]] = setting.checked(run / pending[done])
            ordered = {name: found[name] for name in variants if name in found}
            table = {"stage": stage, "trained": trained, "minutes": minutes, "variants": ordered}
            (run / TABLE).write_text(json.dumps(table, indent=1) + "\n")
            advance("variants trained", number, len(variants))
    finally:
        team.shutdown(cancel_futures=True)
    return {name: found[name] for name in variants}


def _require_same(run: Path, given: Mapping[str, object]) -> None:
    """Note what a run's variants have in common; raises ExportError where it was something else."""
    file = run / _GIVEN
    if not file.exists():
        run.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(given, indent=1) + "\n")
    before: dict[str, object] = json.loads(file.read_text())
    for name, fact in given.items():
        if (was := before.get(name)) != fact:
            raise ExportError(
                f"{run} has variants with {name} {was}, not {fact}; give a new run folder"
            )


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
