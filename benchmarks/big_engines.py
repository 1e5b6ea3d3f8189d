"""Engines of a big checkpoint: every graph built by TensorRT-RTX, in time and memory.

    python benchmarks/big_engines.py --work DIR [--shape 3B] [--precision fp16] [--json OUT]

Writes the graphs of a checkpoint of that shape with random weights, which need no checkpoint on
disk, and builds each in a process of its own, as `idetex-edge build` does. Prints what each took:
time, time of processors, the largest resident set, which counts the pages of the weights' file, and
what of it cannot be taken back as those can, the engine's size, and the estimate beside it. A graph
whose estimate is above --limit is not built.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from benchmarks.shapes import NANO, RandomWeights, config_of
from export.bundling.graphs import Recipe
from export.bundling.manifest import describe
from export.bundling.sizes import supposed
from export.bundling.write import seal, write_json, write_model
from export.calibration.plan import Plan
from export.checkpoint import describe_checkpoint
from export.targets import find_target
from export.tensorrt.engines import HERE, build_recipe
from idetex_edge.bundle import Bundle
from idetex_edge.cli.script import run
from idetex_edge.tensorrt.builders import builder_of
from idetex_edge.tensorrt.memory import available_memory, building_takes
from idetex_edge.tensorrt.recipe import BUILD, load_recipe

_BUILD: Final = """
import json
import re
import sys
from pathlib import Path
from idetex_edge.bundle import Bundle, load_manifest
from idetex_edge.tensorrt.build import build_engine
from idetex_edge.tensorrt.builders import builder_of
from idetex_edge.tensorrt.memory import Limits
from idetex_edge.tensorrt.recipe import load_recipe

folder, name, target, workspace = sys.argv[1:]
bundle = Bundle(Path(folder), load_manifest(Path(folder)))
recipe = load_recipe(bundle).engines[name]
limits, into = Limits(int(workspace)), bundle.file(recipe.file)
graph = bundle.file(recipe.graph)
report = build_engine(builder_of(target), graph, recipe.profiles, limits, into, lambda _: None)
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]
print(json.dumps({"report": str(report), "peak_gb": int(peak) * 1024 / 1e9}))
"""
"""It tells its own peak: the system counts a child as large as its parent until it runs this."""


def big_engines(
    work: Annotated[Path, typer.Option(help="Folder for graphs and engines.")],
    shape: Annotated[str, typer.Option(help="2B, 3B or 7B.")] = "3B",
    precision: Annotated[str, typer.Option(help="As of `convert --target tensorrt-rtx`.")] = "fp16",
    limit: Annotated[float, typer.Option(help="Most GB that a build may take.")] = 12.0,
    output: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
    keep: Annotated[bool, typer.Option(help="Leave everything there at the end.")] = False,
) -> None:
    """Build the engines of a big checkpoint, and print what each took."""
    folder = work / f"{shape}-{precision}"
    bundle = _bundle(folder, shape, precision)
    found: list[dict[str, Any]] = []
    for name, recipe in load_recipe(bundle).engines.items():
        needed = building_takes(bundle, recipe)
        facts: dict[str, Any] = {"graph": name, "estimate_gb": needed / 1e9}
        if needed <= min(limit * 1e9, available_memory() or needed):
            facts |= _built(bundle, name)
        else:
            facts["not_built"] = "the estimate is above the limit, or above what is free"
        found.append(facts)
        typer.echo(", ".join(f"{key} {_text(value)}" for key, value in facts.items()))
    if output is not None:
        told = {"shape": shape, "precision": precision, "builder": builder_of(HERE).__version__}
        write_json(output, told | {"engines": found})
    if not keep:
        shutil.rmtree(folder)


def _bundle(folder: Path, shape: str, precision: str) -> Bundle:
    """Write a bundle's graphs as `convert` does, without any proof, all INT8 steps alike."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    target, form = find_target(HERE, precision)
    checkpoint = describe_checkpoint(NANO, config_of(shape), RandomWeights(shape))
    recipe = Recipe(checkpoint, target, form, Plan())
    recipe = replace(recipe, plan=supposed(recipe))
    write_model(recipe, folder, _quietly)
    manifest = describe(recipe, shape, HERE, precision)
    build = build_recipe(recipe, manifest)
    assert build is not None
    write_json(folder / BUILD, build.to_dict())
    return seal(folder, manifest)


def _quietly(stage: str, done: int, total: int) -> None:
    """Say nothing of how far it is."""


def _built(bundle: Bundle, name: str) -> dict[str, Any]:
    """Build one engine in a process, and tell what it took."""
    command = [sys.executable, "-c", _BUILD, str(bundle.path), name, HERE, str(2**30)]
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    own = 0
    while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
        own = max(own, _anonymous(process.pid))
        time.sleep(0.05)
    _, status, usage = ended
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.stdout is not None
    told = process.stdout.read()
    engine = bundle.file(f"{name}.engine")
    return {
        "status": process.returncode,
        "seconds": time.monotonic() - began,
        "processor_seconds": usage.ru_utime + usage.ru_stime,
        "anonymous_gb": own / 1e9,
        "engine_gb": engine.stat().st_size / 1e9 if engine.exists() else 0.0,
        **(json.loads(told) if told else {}),
    }


def _anonymous(process: int) -> int:
    """Bytes of its memory that are no pages of files."""
    try:
        told = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"^RssAnon:\s+(\d+) kB", told, re.MULTILINE)
    return 1024 * int(found[1]) if found else 0


def _text(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else json.dumps(value)


if __name__ == "__main__":
    run(big_engines)
