"""A TensorRT bundle's build recipe, and its engines where they can be built here."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from export.bundling.graphs import GRAPHS, Recipe
from export.graphs.write import Advance
from export.tensorrt.kernels import without_kernel
from export.tensorrt.profiles import decoder_profiles, vision_profiles
from idetex_edge.bundle import Bundle, Manifest, add_files, part_of
from idetex_edge.errors import EngineError, ExportError
from idetex_edge.tensorrt.apart import build_apart
from idetex_edge.tensorrt.build import in_percent
from idetex_edge.tensorrt.builders import BUILDERS, builder_of
from idetex_edge.tensorrt.memory import limits_for
from idetex_edge.tensorrt.recipe import BuildRecipe, EngineRecipe, load_recipe
from idetex_edge.tensorrt.report import EngineReport

HERE: Final = "tensorrt-rtx"
BUILT_HERE: Final = BUILDERS[HERE].module
"""The builder that needs no GPU, and whose engines run on any of the cards it supports."""


def build_recipe(recipe: Recipe, manifest: Manifest) -> BuildRecipe | None:
    """Describe how a bundle's engines are built; None for a target that has none."""
    target = recipe.target
    if target.builder is None:
        return None
    profiles = {
        "vision": vision_profiles(recipe, manifest.preprocessor),
        "decoder": decoder_profiles(recipe),
    }
    return BuildRecipe(
        engines={
            name: EngineRecipe(GRAPHS[name], f"{name}.engine", found)
            for name, found in profiles.items()
        },
        spelled_out={
            attention.operator: reason
            for attention, reason in without_kernel(target, recipe.checkpoint)
        },
    )


def require_builder(recipe: Recipe) -> None:
    """Raise ExportError when engines are to be built here and cannot be."""
    if recipe.target.builder == BUILT_HERE:
        try:
            builder_of(HERE)
        except EngineError as error:
            raise ExportError(str(error)) from None


def add_engines(recipe: Recipe, bundle: Bundle, advance: Advance) -> list[EngineReport]:
    """Build a bundle's engines into its folder, where they run on any card; none for other targets.

    Raises EngineError when a graph cannot be built.
    """
    if recipe.target.builder != BUILT_HERE:
        return []
    engines, reports = load_recipe(bundle).engines, list[EngineReport]()
    parts = {engine.file: part_of(bundle.file(engine.file)) for engine in engines.values()}
    for engine in engines.values():
        limits = limits_for(bundle, engine, None)
        told = in_percent(advance, engine.file)
        part = parts[engine.file]
        reports.append(build_apart(builder_of(HERE), bundle, engine, limits, part, told))
    names = {name: engine.file for name, engine in engines.items()}
    add_files(replace(bundle, manifest=replace(bundle.manifest, engines=names)), parts)
    return reports
