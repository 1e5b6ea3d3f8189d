"""`idetex-edge build`: make a bundle's TensorRT engines on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from idetex_edge.bundle import open_bundle
from idetex_edge.cli.options import AsJson
from idetex_edge.cli.printing import print_json
from idetex_edge.cli.stages import showing_stages
from idetex_edge.cli.verify import BundlePlace
from idetex_edge.cuda.driver import Device, cuda_driver
from idetex_edge.errors import EngineError
from idetex_edge.hub import bundle_folder
from idetex_edge.tensorrt.build import in_percent
from idetex_edge.tensorrt.builders import AUTO, BUILT_FOR, FLAVOURS, load_builder
from idetex_edge.tensorrt.engines import Engines
from idetex_edge.tensorrt.memory import available_memory, building_takes
from idetex_edge.tensorrt.recipe import load_recipe

Target = Annotated[
    str,
    typer.Option(
        "--target",
        help=f"Whose builder to use: {', '.join((AUTO, *BUILT_FOR))}; auto: what is here.",
    ),
]


def build(bundle: BundlePlace, target: Target = AUTO, as_json: AsJson = False) -> None:
    """Build a bundle's engines, one at a time, and keep them where the tensorrt engine looks."""
    opened = open_bundle(bundle_folder(bundle))
    recipe = load_recipe(opened)
    trt = load_builder(opened.manifest.target, target)
    engines = Engines(opened, recipe, trt, *_gpu(FLAVOURS[trt.__name__].portable))
    free = available_memory()
    needs = {name: building_takes(opened, engine) for name, engine in recipe.engines.items()}
    if not as_json:
        here = "" if free is None else f", {free / 1e9:.1f} GB are available"
        for name, needed in needs.items():
            typer.echo(f"{name}: building takes about {needed / 1e9:.1f} GB of memory{here}")
    with showing_stages() as advance:
        sizes = {
            name: len(engines.read(name, in_percent(advance, name))) for name in recipe.engines
        }
    if as_json:
        print_json(
            {
                "builder": f"{trt.__name__} {trt.__version__}",
                "bytes": sizes,
                "estimated_peak": needs,
            }
        )
        return
    for name, size in sizes.items():
        typer.echo(f"{name}: {size / 1e6:.1f} MB, built by {trt.__name__} {trt.__version__}")


def _gpu(portable: bool) -> tuple[str, int | None]:
    """Name and memory of the GPU; engines that run on any can be built without one."""
    try:
        device = Device(cuda_driver("tensorrt"), "tensorrt")
    except EngineError:
        if not portable:
            raise
        return "", None
    return device.name, device.memory
