"""A TensorRT bundle's build recipe, and its engines where they can be built here."""

from __future__ import annotations

from typing import Final

from export.bundling.graphs import GRAPHS, Recipe
from export.tensorrt.kernels import without_kernel
from export.tensorrt.profiles import decoder_profiles, vision_profiles
from idetex_edge.bundle import Manifest
from idetex_edge.errors import EngineError, ExportError
from idetex_edge.tensorrt.build import load_builder
from idetex_edge.tensorrt.recipe import BuildRecipe, EngineRecipe

BUILT_HERE: Final = "tensorrt_rtx"
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
        builder=target.builder,
        oldest=target.oldest,
        engines={
            name: EngineRecipe(GRAPHS[name], f"{name}.engine", found)
            for name, found in profiles.items()
        },
        spelled_out={
            attention.operator: reason
            for attention, reason in without_kernel(target, recipe.checkpoint)
        },
    )


def require_builder(build: BuildRecipe | None) -> None:
    """Raise ExportError when engines are to be built here and cannot be."""
    if build is not None and build.builder == BUILT_HERE:
        try:
            load_builder(build)
        except EngineError as error:
            raise ExportError(str(error)) from None
