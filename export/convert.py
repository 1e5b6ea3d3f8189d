"""From a checkpoint to a proven bundle.

The bundle grows in a hidden folder beside its destination and moves there when it is whole. An
error leaves nothing behind; what a killed run had finished is taken up by the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from export.bundling.folder import Growing, growing
from export.bundling.graphs import Recipe
from export.bundling.manifest import describe
from export.bundling.sizes import require_space
from export.bundling.write import seal, write_json, write_model
from export.calibration.calibrate import calibrate
from export.calibration.overflow import require_attention
from export.calibration.plan import CALIBRATION, Plan
from export.checkpoint import open_checkpoint
from export.drafts import PICTURES, learn_drafts
from export.graphs.write import Advance
from export.parity.answers import STEPS
from export.parity.layers import worst_layers
from export.parity.measure import measure_parity
from export.parity.pictures import Photographs, photographs
from export.parity.reference import Reference
from export.parity.scoreboard import Held
from export.targets import find_target
from export.tensorrt.engines import add_engines, build_recipe, require_builder
from idetex_edge.assessor import Assessor
from idetex_edge.bundle import Bundle, open_bundle
from idetex_edge.engines.onnx import OnnxEngine
from idetex_edge.errors import ExportError
from idetex_edge.smoke import SMOKE, levels_of
from idetex_edge.tensorrt.recipe import BUILD
from idetex_edge.tensorrt.report import EngineReport

PARITY: Final = "parity.json"
DRAFTS: Final = "drafts.json"
_RUNS_ANYWHERE: Final = "onnx-standard"
CALIBRATED_ON: Final = 32
"""The most pictures that are calibrated on: ranges hardly move with more."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """What to convert, and into what.

    model: checkpoint folder or hub id. adapter: a LoRA's folder, merged into the model.
    calibration: a folder of photographs, some of them held out for the proof; None proves on
    scikit-image's and cannot calibrate. ranges: a `calibration.json` to use again. bench: a
    benchmark on which no score may fall; calibration is held to it too. drafts: a folder of
    pictures like those to come, whose answers drafts are learnt from. kernels: what
    `python -m kernels build` wrote, for a part for NVIDIA GPUs in the bundle. steps: the most
    tokens of an answer that are compared.
    """

    model: str | Path
    output: Path
    target: str = "onnx-cpu"
    precision: str = "fp32"
    adapter: Path | None = None
    calibration: Path | None = None
    ranges: Path | None = None
    bench: Path | None = None
    drafts: Path | None = None
    kernels: Path | None = None
    overwrite: bool = False
    allow_degraded: bool = False
    steps: int = STEPS


@dataclass(frozen=True, slots=True)
class Converted:
    """A bundle that is whole; what its engines take where they were built here.

    kept: matrices that stay in float, and why.
    """

    bundle: Bundle
    engines: tuple[EngineReport, ...]
    kept: Mapping[str, str]


def convert(wanted: Conversion, advance: Advance) -> Converted:
    """Convert a checkpoint and check the bundle against it.

    Raises ExportError when checkpoint, adapter, pictures, target or destination cannot be used, or
    when the result differs from the checkpoint by more than the precision's limits.
    """
    recipe = recipe_of(wanted)
    pictures = photographs(wanted.calibration, CALIBRATED_ON)
    held = None if wanted.bench is None else Held(recipe, wanted.bench, advance)
    if wanted.drafts is not None and recipe.target.dialect.last_only:
        raise ExportError(
            f"graphs for {wanted.target} give the last token's logits alone, so nothing can be "
            "drafted; leave --drafts out"
        )
    drafted = None if wanted.drafts is None else photographs(wanted.drafts, PICTURES)
    if wanted.kernels is not None:
        # Imported here, as below: it needs Triton, which not every workshop has.
        from export.triton.add import require_kernels

        require_kernels(wanted.kernels)
    with growing(wanted.output, wanted.overwrite, _identity(wanted, recipe)) as folder:
        # What can be refused at once is, before anything that takes long.
        manifest = describe(recipe, recipe.checkpoint.name, wanted.target, wanted.precision)
        build = build_recipe(recipe, manifest)
        require_builder(recipe)
        require_space(recipe, folder.path)
        reference = Reference(recipe.checkpoint)
        plan = _plan(wanted, recipe, reference, pictures, folder, held, advance)
        recipe = replace(recipe, plan=plan)
        if recipe.target.half:
            require_attention(plan)
        folder.once("graphs", lambda: write_model(recipe, folder.path, advance))
        if recipe.plan != Plan():
            recipe.plan.save(folder.path / CALIBRATION)
        if build is not None:
            write_json(folder.path / BUILD, build.to_dict())
        bundle = seal(folder.path, manifest)
        folder.once(
            "parity", lambda: _prove(wanted, recipe, reference, bundle, pictures, held, advance)
        )
        if drafted is not None:
            manifest = replace(manifest, drafts=DRAFTS)
            folder.once("drafts", lambda: _draft(drafted, bundle, advance))
        folder.finish()
        bundle = seal(folder.path, manifest)
        reports = add_engines(recipe, bundle, advance)
        if build is None:
            levels = levels_of(Assessor(folder.path))
            write_json(folder.path / SMOKE, {"level_probabilities": levels})
            seal(folder.path, manifest)
        if wanted.kernels is not None:
            _add_kernels(wanted.kernels, wanted.precision, recipe, folder.path, advance)
    return Converted(open_bundle(wanted.output), tuple(reports), recipe.applied.kept)


def recipe_of(wanted: Conversion) -> Recipe:
    """Open what is to be converted; its plan is the one given, or empty."""
    target, precision = find_target(wanted.target, wanted.precision)
    checkpoint = open_checkpoint(wanted.model, wanted.adapter)
    plan = Plan() if wanted.ranges is None else Plan.load(wanted.ranges)
    if precision.calibrated and not plan.layers and wanted.calibration is None:
        raise ExportError(
            f"{wanted.precision} for {wanted.target} is calibrated: pass --calibration FOLDER of "
            "photographs, or --ranges of an earlier calibration"
        )
    return Recipe(checkpoint, target, precision, plan)


def _identity(wanted: Conversion, recipe: Recipe) -> str:
    return repr((replace(wanted, overwrite=False), recipe.checkpoint.weights.identity))


def _plan(
    wanted: Conversion,
    recipe: Recipe,
    reference: Reference,
    pictures: Photographs,
    folder: Growing,
    held: Held | None,
    advance: Advance,
) -> Plan:
    watched = recipe.precision.calibrated or recipe.target.half or wanted.kernels is not None
    if wanted.ranges is not None or not watched:
        return recipe.plan
    path = folder.path / CALIBRATION

    def make() -> None:
        seen = pictures.calibration or pictures.proof
        calibrate(recipe, reference, seen, wanted.steps, advance, held).save(path)

    folder.once("calibration", make)
    return Plan.load(path)


def _prove(
    wanted: Conversion,
    recipe: Recipe,
    reference: Reference,
    bundle: Bundle,
    pictures: Photographs,
    held: Held | None,
    advance: Advance,
) -> None:
    # Graphs for a device that is not here are ONNX too.
    draft = replace(bundle, manifest=replace(bundle.manifest, target=_RUNS_ANYWHERE))
    parity = measure_parity(
        reference, draft, OnnxEngine(draft), pictures.proof, wanted.steps, advance
    )
    shortfalls = [*parity.shortfalls(recipe.precision.limits)]
    report = parity.to_dict() | {
        "precision": wanted.precision,
        "broken_pictures": pictures.broken,
        "degraded": shortfalls,
    }
    if held is not None and (wanted.allow_degraded or not shortfalls):
        scoreboard = held.scoreboard(recipe.plan)
        shortfalls += scoreboard.shortfalls()
        report["scoreboard"] = scoreboard.to_dict()
    if shortfalls:
        report["worst_layers"] = worst_layers(recipe, reference, bundle, pictures.proof[0], advance)
        if not wanted.allow_degraded:
            raise ExportError(_degraded(shortfalls, report["worst_layers"]))
    write_json(bundle.path / PARITY, report)


def _draft(pictures: Photographs, bundle: Bundle, advance: Advance) -> None:
    drafter = learn_drafts(bundle, (*pictures.calibration, *pictures.proof), advance)
    bundle.file(DRAFTS).write_text(drafter.to_json(), encoding="utf-8")


def _add_kernels(
    kernels: Path, precision: str, recipe: Recipe, folder: Path, advance: Advance
) -> None:
    from export.triton.add import CACHES, PRECISION_OF, add_triton

    add_triton(
        *(open_bundle(folder), recipe.checkpoint, kernels),
        *(PRECISION_OF[precision], CACHES[0], recipe.plan, advance),
    )


def _degraded(shortfalls: Sequence[str], worst: dict[str, float]) -> str:
    layers = ", ".join(f"{name} ({error:.3f})" for name, error in worst.items())
    return (
        f"{'; '.join(shortfalls)}; the worst layers are {layers}; no bundle was written: choose "
        "another precision, or pass --allow-degraded"
    )
