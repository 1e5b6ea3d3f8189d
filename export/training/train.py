"""The whole recipe, one command: photographs in, a checkpoint out.

A run folder holds every stage's state, so that the same command goes on where it was stopped:
`pool/` and `checks/` (spoiled pictures), `tokenizer.json`, `start.pt`, `vision.pt`, `reading.pt`,
`model.pt`, logs, `training.png`, and at last `checkpoint/`.

The vision tower learns to give evidence of every cell; beside it, on other cores, the language
model learns to read such evidence, from the truth; then both are joined and learn together.
"""

import json
from collections.abc import Iterator, Mapping
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Final

import torch
from tokenizers import Tokenizer

from export.pool.photos import clean_photos, list_photos, scored_photos
from export.pool.shards import SHARD, Record, Shard, require_split, shard_folders, write_shard
from export.recipe import WHOLE, Recipe
from export.student.tokenizer import train_tokenizer
from export.supervision.examples import examples_for, score_example
from export.supervision.labelled import Labelled
from export.supervision.vida import read_vida
from export.training.checkpoint import write_checkpoint
from export.training.language_stage import train_language
from export.training.stages import LANGUAGE, READING, Material
from export.training.team import Team, train_apart
from export.training.unfolding import start_of
from export.training.vision_stage import train_vision
from export.training.watching import watching
from idetex_edge.prompts import PromptSet

PROMPTS: Final = Path(__file__).parents[1] / "prompts" / "nano.json"
CHECKS: Final = {"seen": False, "unseen": True}
"""Validation pools, on held-out photographs: with trained causes, and with held-out ones."""

_APART_SHARE: Final = 0.45
"""How much of the time the tower and the language model learn each by themselves."""

_CHECK_SHARDS: Final = 8
_CHECK_SEED: Final = 900_000
_FIRST_SHARDS: Final = 60
_TOKENIZER_SHARDS: Final = 80


def _spoil_on(photos: Path, pool: Path, shards: int, recipe: Recipe) -> None:
    """Fill a pool up to so many shards; runs in a process of its own, one thread."""
    torch.set_num_threads(1)
    clean = clean_photos(list_photos(photos), held_out=False)
    have = {int(folder.name.split("_")[0]) for folder in shard_folders(pool)}
    for seed in range(shards):
        if seed not in have:
            write_shard(pool, clean, photos, seed, held_out=False, recipe=recipe)


def make_checks(photos: Path, run: Path) -> dict[str, Path]:
    """The validation pools of a run by name, made where they are missing.

    Raises ExportError where those that are there have causes of another split.
    """
    clean = clean_photos(list_photos(photos), held_out=True)
    pools = {name: run / "checks" / name for name in CHECKS}
    for name, held_out_causes in CHECKS.items():
        pools[name].mkdir(parents=True, exist_ok=True)
        require_split(pools[name], held_out_causes)
        have = {int(folder.name.split("_")[0]) for folder in shard_folders(pools[name])}
        for seed in range(_CHECK_SEED, _CHECK_SEED + _CHECK_SHARDS):
            if seed not in have:
                write_shard(pools[name], clean, photos, seed, held_out_causes)
    return pools


def _said(pool: Path, prompts: PromptSet) -> Iterator[str]:
    random = Random(0)
    for folder in shard_folders(pool)[:_TOKENIZER_SHARDS]:
        records: tuple[Record, ...] = Shard.open(folder).records
        for record in records:
            for example in examples_for(record, (False, False), random):
                yield prompts[example.task].tail(**example.fields) + example.answer
    yield prompts["score"].head(10, 10)


def _scored_examples(photos: Path, held_out: bool) -> list[Labelled]:
    """The photographs that people scored, of one side of the split, as examples of that task."""
    return [
        Labelled(photo.path, (score_example(photo.mos),))
        for photo in scored_photos(list_photos(photos), held_out)
        if photo.mos is not None
    ]


def material_of(
    tokenizer: Tokenizer,
    prompts: PromptSet,
    pool: Path,
    checks: Mapping[str, Path],
    photos: Path,
    vida: Path | None,
) -> Material:
    """Material with the scored ones of `photos` and, where given, the pictures of `vida`."""
    real, scored = (_scored_examples(photos, held_out) for held_out in (False, True))
    labelled = read_vida(vida).pictures if vida else ()
    return Material(tokenizer, prompts, pool, real, checks, scored, labelled)


def train(
    preset: str,
    photos: Path,
    run: Path,
    minutes: float,
    pictures: int,
    processes: int,
    texts: list[Path],
    start: Path | None = None,
    vida: Path | None = None,
    teacher: Path | None = None,
    recipe: Recipe = WHOLE,
) -> Path:
    """Train a preset for so many minutes in all; returns the checkpoint's folder.

    `photos` is a folder with a SOURCES.tsv (see `export.pool.photos`); `pictures` how many are
    spoiled for the pool; `processes` how many train, a core each, shared between the first two
    stages; `texts` are files whose words the tokenizer should know besides our own. With a
    checkpoint folder as `start`, its weights and tokenizer are trained further. `vida` is a
    folder of ViDA-UGC's training files (`export.supervision.vida`), mixed in as photographs with
    human scores are; the tower learns their boxes, too. A `teacher` is a checkpoint folder of one
    of our presets: the student takes its vocabulary and prompts, and learns from it what its tower
    sees, what it says and where it looks (`teaching.py`). `recipe` says which parts to leave out.
    """
    pool = run / "pool"
    pool.mkdir(parents=True, exist_ok=True)
    require_split(pool, held_out=False)
    model = start or teacher
    words = model / "prompts.json" if model else PROMPTS
    prompts = PromptSet.from_dict(json.loads(words.read_text()))
    context = get_context("spawn")
    shards = -(-pictures // SHARD)
    _spoil_on(photos, pool, min(_FIRST_SHARDS, shards), recipe)
    spoiler = context.Process(target=_spoil_on, args=(photos, pool, shards, recipe), daemon=True)
    spoiler.start()
    checks = make_checks(photos, run)
    vocabulary = (model or run) / "tokenizer.json"
    if not vocabulary.exists():
        more = [path.read_text() for path in texts]
        train_tokenizer([*_said(pool, prompts), *more]).save(str(vocabulary))
    tokenizer = Tokenizer.from_file(str(vocabulary))
    material = material_of(tokenizer, prompts, pool, checks, photos, vida)
    common = (preset, material, run)
    begun = start_of(run, preset, tokenizer, start, pool) if start else None
    apart = minutes * _APART_SHARE
    budgets = {"vision": apart, READING.name: apart, LANGUAGE.name: minutes - apart}
    with watching(run, budgets):
        begins = (apart, begun, teacher, recipe)
        train_apart(
            Team(-(-processes // 2), train_vision, (*common, *begins)),
            Team(max(1, processes // 2), train_language, (READING, *common, *begins)),
        )
        joined = (*common, minutes - apart, None, teacher, recipe)
        train_apart(Team(processes, train_language, (LANGUAGE, *joined)))
    spoiler.terminate()
    output = run / "checkpoint"
    write_checkpoint(preset, tokenizer, prompts, run / "model.pt", output)
    return output
