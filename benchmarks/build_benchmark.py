"""Build a benchmark in ViDA-UGC-Bench's form from photographs and the distortion engine.

    python benchmarks/build_benchmark.py --photos DIR --output DIR --pictures 240 --seed 1

Photographs are taken whole, shrunk to at most 960 and at least 336 px on their longer side,
spoiled with known truth and saved without loss. A folder with our `SOURCES.tsv` lends the sources
held out from training, any other all its pictures. `significance_score` is the quality that a
distortion takes, 0..100; `mos` is the pseudo-MOS 1..5 that `level` stands for. The same seed and
photographs give the same benchmark.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Annotated, Any, Final

import typer
from PIL import Image

from export.distortions.chance import Chance
from export.distortions.compose import Spoiled, Truth, spoil
from export.distortions.pictures import to_picture, to_tensor
from export.pool.appearance import appearance_of
from export.pool.fidelity import fidelity_of
from export.pool.photos import clean_photos, list_photos
from export.pool.shards import Record
from export.supervision import choices
from export.supervision.example import Example
from export.supervision.grounding import region_perception
from export.supervision.levels import level_of, pseudo_mos
from export.supervision.truths import loss_of
from idetex_edge import OutputError, RequestError
from idetex_edge.cli.script import run
from idetex_edge.cli.stages import showing_stages
from idetex_edge.evaluation.benchmark import IMAGES, METADATA, QUESTIONS, REGIONS
from idetex_edge.evaluation.files import write_json
from idetex_edge.image import load_image
from idetex_edge.parsing import parse_grounding
from idetex_edge.pictures import find_pictures

LONGER_SIDE: Final = (336, 960)
"""Pixels; a smaller photograph is left out, because enlarging is a distortion of its own."""

_MOST_ELONGATED: Final = 2.5
_SECOND_REGION: Final = 0.4
_FOURTH_QUESTION: Final = 0.7
_MAKERS: Final[dict[str, tuple[Callable[[Sequence[Truth], Random], Example | None], ...]]] = {
    "position": (choices.where_choice, choices.what_there_choice),
    "type": (choices.type_choice,),
    "significance": (choices.significance_choice,),
    "severity": (choices.severity_choice,),
}

Entry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Photograph:
    """One to spoil: its name below the folder and people's score 1..5, if they gave one."""

    path: Path
    name: str
    mos: float | None


def list_photographs(folder: Path) -> list[Photograph]:
    """The photographs of a folder, sorted by name (see this module's docstring).

    Raises RequestError when there is none that is large enough.
    """
    held_out = (
        clean_photos(list_photos(folder), held_out=True)
        if (folder / "SOURCES.tsv").is_file()
        else []
    )
    found = [Photograph(p.path, p.path.relative_to(folder).as_posix(), p.mos) for p in held_out]
    if not found:
        found = [
            Photograph(Path(picture.path), picture.name.as_posix(), None)
            for picture in find_pictures([str(folder)])
            if picture.problem is None
        ]
    fitting = [photograph for photograph in found if _fits(photograph.path)]
    if not fitting:
        raise RequestError(f"{folder} has no photograph with a side of {LONGER_SIDE[0]} px or more")
    return sorted(fitting, key=lambda photograph: photograph.name)


def build_benchmark(
    photos: Path,
    output: Path,
    *,
    pictures: int,
    held_out_causes: bool,
    seed: int,
    advance: Callable[[str, int, int], None],
) -> None:
    """Make a benchmark of so many pictures in a new folder `output`, whole or not at all.

    held_out_causes: spoil by the causes that training never uses, instead of those that it does.
    Raises RequestError without photographs, OutputError when `output` exists or cannot be made.
    """
    if output.exists():
        raise OutputError(f"{output} exists; delete it or give another --output")
    photographs = list_photographs(photos)
    Random(seed).shuffle(photographs)
    metadata: list[Entry] = []
    regions: list[Entry] = []
    questions: list[Entry] = []
    partial = output.with_name(f".{output.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        (partial / IMAGES).mkdir(parents=True)
        for index in range(pictures):
            advance("spoiling", index, pictures)
            chance = Chance((seed << 32) + index)
            photograph = photographs[index % len(photographs)]
            entry, spoiled = _spoil(photograph, index, chance, held_out_causes)
            to_picture(spoiled.image).save(partial / IMAGES / entry["image"])
            facts = {name: entry[name] for name in ("image", "width", "height")}
            metadata.append(entry)
            regions += [facts | region for region in _regions(spoiled.truths, chance)]
            image = {"image": entry["image"]}
            questions += [image | question for question in _questions(spoiled.truths, chance)]
        write_json(partial / METADATA, metadata)
        write_json(partial / REGIONS, _numbered(regions))
        write_json(partial / QUESTIONS, _numbered(questions))
        partial.replace(output)
    except OSError as error:
        raise OutputError(f"cannot make {output}: {error}; give another --output") from None
    advance("spoiling", pictures, pictures)


def _fits(path: Path) -> bool:
    with Image.open(path) as picture:
        longer, shorter = max(picture.size), min(picture.size)
    return longer >= LONGER_SIDE[0] and longer <= _MOST_ELONGATED * shorter


def _spoil(
    photograph: Photograph, index: int, chance: Chance, held_out: bool
) -> tuple[Entry, Spoiled]:
    """One picture of the benchmark and its entry in the metadata."""
    picture = load_image(photograph.path)
    longer = max(picture.size)
    scale = chance.log_uniform(LONGER_SIDE[0], min(longer, LONGER_SIDE[1])) / longer
    width, height = (round(side * scale) for side in picture.size)
    clean = to_tensor(picture.resize((width, height), Image.Resampling.LANCZOS))
    seed = chance.getrandbits(48)
    spoiled = spoil(clean, seed, held_out)
    record = Record(
        photo=photograph.name,
        seed=seed,
        clean_mos=photograph.mos,
        truths=spoiled.truths,
        fidelity=fidelity_of(clean, spoiled.image),
        appearance=appearance_of(spoiled.image),
    )
    mos = pseudo_mos(record)
    entry = {
        "id": index,
        "image": f"{index:04d}.png",
        "width": width,
        "height": height,
        "photo": photograph.name,
        "distortions": [_label(truth) for truth in spoiled.truths],
        "mos": round(mos, 3),
        "level": level_of(mos),
    }
    return entry, spoiled


def _label(truth: Truth) -> Entry:
    return {
        "distortion": truth.type,
        "severity": truth.severity,
        "coordinates": list(truth.box),
        "significance_score": round(100 * loss_of(truth)),
    }


def _regions(truths: Sequence[Truth], chance: Chance) -> list[Entry]:
    """One or two regions to ask about."""
    found: dict[str, Entry] = {}
    for _ in range(1 + (chance.random() < _SECOND_REGION)):
        example = region_perception(truths, chance)
        question = f"What distortion affects this region {example.fields['region']}?"
        labels = [
            {
                "distortion": distortion.type,
                "severity": distortion.severity,
                "coordinates": list(distortion.box_1000),
            }
            for distortion in parse_grounding(example.answer)
        ]
        found[question] = {"question": question, "distortions": labels}
    return list(found.values())


def _questions(truths: Sequence[Truth], chance: Chance) -> list[Entry]:
    """Three or four questions of different concerns, as far as the picture gives cause for them."""
    wanted = 3 + (chance.random() < _FOURTH_QUESTION)
    found: dict[str, Entry] = {}
    for concern in chance.sample(list(_MAKERS), len(_MAKERS)) * 2:
        example = chance.choice(_MAKERS[concern])(truths, chance)
        if example is None or len(found) == wanted:
            continue
        candidates = [line[len("A. ") :] for line in example.fields["options"].splitlines()]
        question = example.fields["question"]
        found[question] = {
            "concern": concern,
            "question": question,
            "candidates": candidates,
            "correct_ans": candidates[ord(example.answer) - ord("A")],
        }
    return list(found.values())


def _numbered(entries: Sequence[Entry]) -> list[Entry]:
    return [{"id": i} | entry for i, entry in enumerate(entries)]


def build(
    photos: Annotated[Path, typer.Option(help="Folder of photographs.")],
    output: Annotated[Path, typer.Option(help="Benchmark folder to make.")],
    pictures: Annotated[int, typer.Option(min=1, help="How many pictures to make.")] = 240,
    held_out_causes: Annotated[
        bool,
        typer.Option(
            "--held-out-causes/--seen-causes",
            help="Spoil as training never does, or as it does.",
        ),
    ] = True,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same benchmark.")] = 1,
) -> None:
    """Build a benchmark in ViDA-UGC-Bench's form from photographs."""
    with showing_stages() as advance:
        build_benchmark(
            photos,
            output,
            pictures=pictures,
            held_out_causes=held_out_causes,
            seed=seed,
            advance=advance,
        )
    print(f"{output}: {pictures} pictures")


if __name__ == "__main__":
    run(build)
