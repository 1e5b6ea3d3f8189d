"""Building engines with whichever TensorRT a recipe names."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from idetex_edge.bundle import Bundle, add_files
from idetex_edge.errors import EngineError
from idetex_edge.tensorrt.builders import HOW_TO_GET, is_as_new_as
from idetex_edge.tensorrt.recipe import BuildRecipe, EngineRecipe, load_recipe
from idetex_edge.tensorrt.report import EngineReport, operators_of, read_messages


def build_engines(
    bundle: Bundle, advance: Callable[[str, int, int], None]
) -> tuple[Bundle, list[EngineReport]]:
    """Build all engines of a bundle into its folder and list them in its manifest.

    Raises BundleError when the bundle has no recipe, and EngineError when this machine lacks the
    builder (saying what to run where), has too old a one, or when a graph cannot be built.
    """
    recipe = load_recipe(bundle)
    builder = load_builder(recipe)
    built: dict[str, bytes] = {}
    reports: list[EngineReport] = []
    for done, (name, engine) in enumerate(recipe.engines.items()):
        advance("building engines", done, len(recipe.engines))
        data, report = build_engine(builder, bundle, name, engine)
        built[engine.file] = data
        reports.append(report)
    advance("building engines", len(recipe.engines), len(recipe.engines))
    engines = {name: engine.file for name, engine in recipe.engines.items()}
    whole = replace(bundle, manifest=replace(bundle.manifest, engines=engines))
    return add_files(whole, built), reports


def load_builder(recipe: BuildRecipe) -> Any:  # noqa: ANN401 - TensorRT has no types
    """Import the builder that a recipe needs; raises EngineError when it is missing or too old."""
    package = recipe.builder.replace("_", "-")
    try:
        module = importlib.import_module(recipe.builder)
    except (ImportError, OSError) as error:
        raise EngineError(
            f"this machine has no {package} {recipe.oldest} or newer ({error}): "
            f"{HOW_TO_GET.get(recipe.builder, 'install it')}"
        ) from None
    if not is_as_new_as(module.__version__, recipe.oldest):
        raise EngineError(
            f"this machine has {package} {module.__version__}, and the bundle needs "
            f"{recipe.oldest}; export it for the older version"
        )
    return module


def build_engine(
    trt: Any,  # noqa: ANN401
    bundle: Bundle,
    name: str,
    recipe: EngineRecipe,
) -> tuple[bytes, EngineReport]:
    """Build one engine of a bundle with a builder's module; raises EngineError when it cannot."""
    log = _log(trt)
    builder = trt.Builder(log)
    # TensorRT 11 and RTX know strongly typed networks only, and have no flag for it.
    strong = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if strong is None else 1 << int(strong))
    parser = trt.OnnxParser(network, log)
    path = bundle.file(recipe.graph)
    if not parser.parse_from_file(str(path)):
        reason = parser.get_error(0).desc() if parser.num_errors else "no reason given"
        raise EngineError(f"{trt.__name__} cannot read {recipe.graph}: {' '.join(reason.split())}")
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    inputs = {network.get_input(index).name for index in range(network.num_inputs)}
    for shapes in recipe.profiles:
        profile = builder.create_optimization_profile()
        for key in inputs & set(shapes):
            profile.set_shape(key, *shapes[key])
        config.add_optimization_profile(profile)
    data = builder.build_serialized_network(network, config)
    if data is None:
        raise EngineError(f"{trt.__name__} cannot build {recipe.graph}: {log.reason}")
    report = read_messages(name, data.nbytes, operators_of(network), log.messages)
    return bytes(data), report


def _log(trt: Any) -> Any:  # noqa: ANN401
    class Log(trt.ILogger):
        """Keeps everything that the builder says."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.messages: list[str] = []
            self.reason = "no reason given"

        def log(self, severity: Any, message: str) -> None:  # noqa: ANN401
            self.messages.append(message)
            # The first error says what is wrong, the others who passed it on.
            if severity == trt.ILogger.Severity.ERROR and self.reason == "no reason given":
                self.reason = " ".join(message.split())

    return Log()
