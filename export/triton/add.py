"""Give a bundle its part for GPUs: `triton.json`, weights, and a file of kernels for each GPU."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from export.bundling.graphs import Recipe
from export.calibration.calibrate import calibrate
from export.calibration.plan import CALIBRATION, Plan
from export.checkpoint import Checkpoint, read_json
from export.graphs.write import Advance
from export.parity.answers import STEPS
from export.parity.pictures import photographs
from export.parity.reference import Reference
from export.targets import find_target
from export.triton.range import quieted
from export.triton.weights import PRECISIONS, Writer, write_weights
from idetex_edge.bundle import Bundle, add_files, part_of
from idetex_edge.errors import ExportError, OutputError
from idetex_edge.triton.contents import (
    CONTENTS,
    WEIGHTS,
    Contents,
    KernelFacts,
    KernelsFacts,
)

CACHES: Final = ("int8", "float")
PRECISION_OF: Final[Mapping[str, str]] = {
    "fp32": "fp16",
    "fp16": "fp16",
    "int8": "int8",
    "int8-weights": "int8",
    "int4": "int4",
    "int4-32": "int4",
}
"""The precision of the part for GPUs by that of a bundle's graphs."""

_VISION_EPSILON: Final = 1e-6


def add_triton(
    bundle: Bundle,
    checkpoint: Checkpoint,
    kernels: Path,
    precision: str,
    cache: str,
    plan: Plan,
    advance: Advance,
) -> Bundle:
    """Add a checkpoint's weights and the kernels in `kernels` (`python -m kernels build`).

    precision: "fp16", "int8" or "int4". cache: "int8" or "float", what keys and values are held in.
    plan: what was seen of numbers beyond FP16 (`measured_plan`). Raises ExportError when bundle and
    checkpoint are of different models, there are no kernels, a name is unknown, or FP16 cannot hold
    the checkpoint's activations; OutputError when the bundle cannot be written.
    """
    if precision not in PRECISIONS or cache not in CACHES:
        raise ExportError(
            f"unknown precision {precision!r} or cache {cache!r}; known are "
            f"{', '.join(PRECISIONS)}, and {', '.join(CACHES)}"
        )
    if (bundle.manifest.text, bundle.manifest.vision) != (checkpoint.text, checkpoint.vision):
        raise ExportError(
            f"the bundle is not of {checkpoint.name}: their shapes differ; give the checkpoint "
            "that it was made from"
        )
    quiet = quieted(plan)
    images = {folder.name: _kernels(folder) for folder in require_kernels(kernels)}
    total = checkpoint.vision.layers + checkpoint.text.layers + 1
    path = bundle.file(WEIGHTS)
    part = part_of(path)
    try:
        with part.open("wb") as file:
            writer = Writer(file)
            for done, layer in enumerate(write_weights(checkpoint, precision, writer, quiet), 1):
                advance(layer, done, total)
        contents = _contents(checkpoint, cache, writer, images)
        files: dict[str, bytes | Path] = {facts.file: data for facts, data in images.values()}
        files[CONTENTS] = json.dumps(asdict(contents)).encode()
        return add_files(bundle, files | {WEIGHTS: part})
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error}; make room for it") from None
    finally:
        part.unlink(missing_ok=True)


def measured_plan(bundle: Bundle, checkpoint: Checkpoint, advance: Advance) -> Plan:
    """Read a bundle's calibration; where it has none, watch the checkpoint read photographs."""
    if CALIBRATION in bundle.manifest.files:
        return Plan.load(bundle.file(CALIBRATION))
    recipe = Recipe(checkpoint, *find_target("onnx-cpu", "fp32"), Plan())
    pictures = photographs(None, 0).proof
    return calibrate(recipe, Reference(checkpoint), pictures, STEPS, advance)


def _contents(
    checkpoint: Checkpoint,
    cache: str,
    writer: Writer,
    images: Mapping[str, tuple[KernelsFacts, bytes]],
) -> Contents:
    plain = "visual.blocks.0.mlp.fc1.weight" in checkpoint.weights
    return Contents(
        cache=cache,
        epsilon=checkpoint.norm_epsilon,
        vision_epsilon=_VISION_EPSILON,
        norm="layer" if "visual.merger.ln_q.bias" in checkpoint.weights else "rms",
        vision_activation=checkpoint.vision_activation if plain else "",
        forms=writer.forms,
        tensors=writer.tensors,
        kernels={arch: facts for arch, (facts, _) in images.items()},
    )


def require_kernels(kernels: Path) -> list[Path]:
    """The folders of architectures that a build of kernels has; ExportError when there are none."""
    folders = sorted(index.parent for index in kernels.glob("sm_*/index.json"))
    if not folders:
        raise ExportError(f"{kernels} holds no kernels; make them with python -m kernels build")
    return folders


def _kernels(folder: Path) -> tuple[KernelsFacts, bytes]:
    """One architecture's cubins in a row, and where each lies."""
    index: dict[str, Any] = read_json(folder / "index.json")
    data, found = bytearray(), dict[str, KernelFacts]()
    for name, entry in index["kernels"].items():
        cubin = (folder / f"{name}.cubin").read_bytes()
        constants = entry["constants"]
        found[name] = KernelFacts(
            function=entry["function"],
            offset=len(data),
            bytes=len(cubin),
            warps=entry["warps"],
            shared=entry["shared"],
            arguments=tuple(kind for _, kind in entry["arguments"]),
            rows=constants.get("BLOCK_M", 1),
            outputs=constants.get("BLOCK_N", 1),
        )
        data += cubin
    return KernelsFacts(f"triton.{index['arch']}.bin", found), bytes(data)
