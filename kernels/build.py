"""Ahead of time: variants to cubin and PTX for a GPU that need not be here, and their index.

A folder for an architecture holds `NAME.cubin` and `NAME.ptx` for each variant and `index.json`:

    {"schema": 1, "arch": "sm_87", "triton": "3.9.0",
     "kernels": {NAME: {"function": str, "sha256": str, "warps": int, "shared": int,
                        "registers": int, "stack": int, "local": int,
                        "arguments": [[name, type], ...], "constants": {...}}}}

`shared` is dynamic shared memory in bytes, to be asked for at launch; `sha256` is the cubin's.
Arguments are in the order in which a launch takes them, with types of `kernels.variant`; those that
Triton adds at the end are pointers named `scratch...`, null because no variant uses any.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from kernels.arches import SHARED_LIMITS
from kernels.configurations import Shape, needed
from kernels.variant import Variant

SCHEMA: Final = 1
INDEX: Final = "index.json"


class BuildError(Exception):
    """A kernel cannot be built, or uses more than its GPU has; one line."""


@dataclass(frozen=True, slots=True)
class Built:
    """A compiled variant: its entry in the index, and the two files."""

    name: str
    entry: dict[str, Any]
    cubin: bytes
    ptx: str


def compile_variant(variant: Variant, arch: str) -> Built:
    """Compile for an architecture such as "sm_87"; raises BuildError when Triton cannot."""
    signature = {name: kind.split(":")[0] for name, kind in variant.types.items()}
    signature |= dict.fromkeys(variant.constants, "constexpr")
    divisible = {
        (i,): [["tt.divisibility", 16]]
        for i, kind in enumerate(variant.types.values())
        if kind.startswith("*") or kind.endswith(":16")
    }
    source = ASTSource(variant.kernel, signature, dict(variant.constants), divisible)
    target = GPUTarget("cuda", int(arch.removeprefix("sm_")), 32)
    options = {
        "num_warps": variant.warps,
        "num_stages": variant.stages,
        "enable_fp_fusion": True,
    }
    # Line tables would put this machine's paths into the files, and double their size.
    knobs.compilation.disable_line_info = True
    try:
        done = triton.compile(source, target=target, options=options)
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        # The assembler's own words stand somewhere inside Triton's report of them.
        telling = [line for word in ("fatal", "error") for line in lines if word in line]
        reason = [*telling, lines[-1]][0].strip()
        raise BuildError(f"{variant.name} does not compile for {arch}: {reason}") from None
    cubin, ptx = bytes(done.asm["cubin"]), str(done.asm["ptx"])
    arguments = [*variant.types.items()]
    entry_point = re.search(r"\.entry \w+\((.*?)\)", ptx, re.DOTALL)
    parameters = entry_point[1].count(".param") if entry_point else 0
    arguments += [(f"scratch{i}", "*i8") for i in range(parameters - len(arguments))]
    metadata: Any = done.metadata
    if metadata.global_scratch_size or parameters < len(variant.types):
        raise BuildError(f"{variant.name} for {arch} wants memory that an engine does not give it")
    entry = {
        "function": metadata.name,
        "sha256": hashlib.sha256(cubin).hexdigest(),
        "warps": metadata.num_warps,
        "shared": metadata.shared,
        **_usage(cubin),
        "arguments": arguments,
        "constants": dict(variant.constants),
    }
    return Built(variant.name, entry, cubin, ptx)


def excess(entry: dict[str, Any], arch: str) -> list[str]:
    """What a kernel uses that it must not: spills and local memory, and too much shared memory."""
    found = [f"{entry[kind]} bytes of {kind} memory" for kind in ("stack", "local") if entry[kind]]
    if entry["shared"] > SHARED_LIMITS[arch]:
        found.append(f"{entry['shared']} bytes of shared memory, above {SHARED_LIMITS[arch]}")
    return found


def build(
    arches: Sequence[str],
    shapes: Sequence[Shape],
    precisions: Sequence[str],
    output: Path,
    workers: int,
    advance: Callable[[str, int, int], None],
) -> None:
    """Compile all variants for all architectures into `output`/ARCH, in `workers` processes.

    advance: told the variant's name and architecture, how many are done, and of how many.
    Raises BuildError for an unknown architecture, a variant that does not compile, or one that
    spills or uses more than its GPU has; an architecture's index is written last.
    """
    require_known(arches)
    names = [variant.name for variant in needed(shapes, precisions)]
    tasks = [(arch, name, tuple(shapes), tuple(precisions)) for arch in arches for name in names]
    entries: dict[str, dict[str, Any]] = {arch: {} for arch in arches}
    with ProcessPoolExecutor(workers) as pool:
        for (arch, name, *_), built in zip(tasks, pool.map(_compile, tasks), strict=True):
            if over := excess(built.entry, arch):
                raise BuildError(f"{name} for {arch} uses {'; '.join(over)}")
            folder = output / arch
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}.cubin").write_bytes(built.cubin)
            (folder / f"{name}.ptx").write_text(built.ptx)
            entries[arch][name] = built.entry
            if len(entries[arch]) == len(names):
                write_index(folder, arch, entries[arch])
            advance(f"{name} {arch}", sum(map(len, entries.values())), len(tasks))


def require_known(arches: Sequence[str]) -> None:
    """Raise BuildError for an architecture that kernels are not built for."""
    if unknown := [arch for arch in arches if arch not in SHARED_LIMITS]:
        raise BuildError(f"unknown architecture {unknown[0]}; known are {', '.join(SHARED_LIMITS)}")


def write_index(folder: Path, arch: str, kernels: dict[str, Any]) -> None:
    """Write `index.json` of an architecture's folder."""
    index = {"schema": SCHEMA, "arch": arch, "triton": triton.__version__, "kernels": kernels}
    (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n")


def _compile(task: tuple[str, str, tuple[Shape, ...], tuple[str, ...]]) -> Built:
    # A Triton function does not pickle; its variant is found again by name.
    arch, name, shapes, precisions = task
    return compile_variant(_named(needed(shapes, precisions), name), arch)


def _named(variants: Iterable[Variant], name: str) -> Variant:
    return next(variant for variant in variants if variant.name == name)


def _usage(cubin: bytes) -> dict[str, int]:
    """Registers of a thread, and bytes of stack and local memory, as cuobjdump reads them."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        command = [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(path)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", text))
    return {
        "registers": int(found["REG"]), "stack": int(found["STACK"]), "local": int(found["LOCAL"])
    }  # fmt: skip
