"""A bundle's engines for this machine: those in it, those kept here, or built now and kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from idetex_edge.bundle import Bundle
from idetex_edge.errors import BundleError
from idetex_edge.tensorrt.apart import build_apart
from idetex_edge.tensorrt.build import Share
from idetex_edge.tensorrt.builders import BUILDERS, FLAVOURS, builders_here
from idetex_edge.tensorrt.memory import limits_for, streams
from idetex_edge.tensorrt.recipe import BuildRecipe, EngineRecipe
from idetex_edge.tensorrt.store import EngineStore, mapped, sha256


class Engines:
    """Where a bundle's engines come from, on one GPU and with one TensorRT.

    device, memory: the GPU's name and bytes of memory; empty and None where there is none, which
    will do for engines that run on any. Limits of memory are those of the moment.
    """

    def __init__(
        self,
        bundle: Bundle,
        recipe: BuildRecipe,
        trt: Any,  # noqa: ANN401 (an untyped module)
        device: str = "",
        memory: int | None = None,
    ) -> None:
        self._bundle, self._recipe, self.builder = bundle, recipe, trt
        self._device, self._memory = device, memory
        self._store = EngineStore.of_user()

    @property
    def here(self) -> bool:
        """Whether none has to be built."""
        return all(
            self._own(engine) or self._store.holds(self._key(engine))
            for engine in self._recipe.engines.values()
        )

    def read(self, name: str, share: Share = lambda _: None) -> memoryview:
        """One engine's bytes, from a file whose hash the manifest or the store vouches for.

        share: told how much of its building is done. Raises BundleError when the bundle's engine
        was altered, EngineError when one cannot be built.
        """
        bundle, engine = self._bundle, self._recipe.engines[name]
        if self._own(engine):
            data = mapped(bundle.file(engine.file))
            if sha256(data) != bundle.manifest.files[engine.file].sha256:
                raise BundleError(
                    f"the bundle's file {engine.file} was altered; copy the bundle again"
                )
            return data

        def build(into: Path) -> None:
            limits = limits_for(bundle, engine, self._memory)
            build_apart(self.builder, bundle, engine, limits, into, share)

        return self._store.get(self._key(engine), build)

    def _own(self, engine: EngineRecipe) -> bool:
        manifest = self._bundle.manifest
        same = BUILDERS[manifest.target].module == self.builder.__name__
        return same and engine.file in manifest.engines.values()

    def _key(self, engine: EngineRecipe) -> str:
        """What an engine depends on: graph, shapes, precision, builder and its version, device."""
        manifest, trt = self._bundle.manifest, self.builder
        # The output matrix may be the embedding's table.
        parts = (engine.graph, manifest.embedding.file)
        files = {name: facts.sha256 for name, facts in manifest.files.items()}
        told = {
            "graph": {name: files[name] for name in files if name.startswith(parts)},
            "profiles": engine.profiles,
            "precision": manifest.precision,
            "builder": [trt.__name__, trt.__version__],
            "streams": streams(self._bundle, self._memory),
            "device": "any" if FLAVOURS[trt.__name__].portable else self._device,
        }
        return sha256(json.dumps(told, sort_keys=True).encode())[:32]


def engines_here(bundle: Bundle, recipe: BuildRecipe, device: str, memory: int) -> Engines:
    """Those of the builder that has built them on this machine, else of the best that is here.

    Raises EngineError when no builder of the bundle's graphs is.
    """
    found = [
        Engines(bundle, recipe, trt, device, memory)
        for trt in builders_here(bundle.manifest.target)
    ]
    return next((engines for engines in found if engines.here), found[0])
