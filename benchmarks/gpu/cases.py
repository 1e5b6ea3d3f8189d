"""The launches that are checked and timed, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from benchmarks.gpu.attention import append_case, decode_case, prefill_case, windows_case
from benchmarks.gpu.case import (
    HIDDEN,
    VISION_HIDDEN,
    Case,
)
from benchmarks.gpu.layers import linear_case, norm_case, projector_case, quantize_case


def plans(device: str, processors: int) -> dict[str, Callable[[], Case]]:
    """Every kernel in the shapes that matter, on a GPU of so many multiprocessors: how to make it.

    Each case is made when it is called for.
    """
    here = (device, processors)
    found: dict[str, Callable[[], Case]] = {}
    for form in ("float", "int8", "int4"):
        for rows in (1, 8):
            name = f"linear {form}, {rows} x 4096 -> 11008"
            found[name] = partial(linear_case, form, rows, 11008, 4096, *here)
    for epilogue, outputs, inputs in (("gated", 11008, 2048), ("residual", 2048, 11008)):
        name = f"linear int8 {epilogue}, 1 x {inputs} -> {outputs}"
        found[name] = partial(linear_case, "int8", 1, outputs, inputs, *here, epilogue)
    for form in ("float", "integer"):
        name = f"linear {form}, 1024 x 2048 -> 11008"
        found[name] = partial(linear_case, form, 1024, 11008, 2048, *here)
    found["RMSNorm, 1024 x 2048"] = partial(norm_case, 1024, HIDDEN, device)
    found["rows to INT8, 1024 x 11008"] = partial(quantize_case, 1024, 11008, device)
    for tokens in (1, 1024):
        found[f"append INT8, tokens: {tokens}"] = partial(append_case, tokens, device)
    for cache in ("int8", "float"):
        name = f"decode attention {cache}, 8 rows, 8192 each"
        found[name] = partial(decode_case, 8, 8192, 0, cache, *here)
    for name, forks, prefix, tail in (
        ("1 row, 1500", 1, 1500, 0),
        ("8 rows, 1564 each", 8, 1564, 0),
        ("8 rows, 1500 shared and 64 own", 8, 1500, 64),
    ):
        found[f"decode attention int8, {name}"] = partial(
            decode_case, forks, prefix, tail, "int8", *here
        )
    for cache in ("int8", "float"):
        name = f"prefill attention {cache}, 512 behind 1024"
        found[name] = partial(prefill_case, 512, 1024, cache, device)
    for windows, patches in ((64, 64), (1, 4096)):
        name = f"vision attention, windows: {windows} of {patches} patches"
        found[name] = partial(windows_case, windows, patches, device)
    for name, form, floats in (
        ("bf16", "float", "bf16"),
        ("fp16", "float", "fp16"),
        ("int8", "integer", "fp16"),
    ):
        found[f"projector {name}, 1024 tokens"] = partial(
            projector_case, form, floats, 1024, VISION_HIDDEN, HIDDEN, *here
        )
    return found
