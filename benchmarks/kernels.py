"""Kernels on this machine's GPU: whether they are right, and how near to what the GPU can do.

    python benchmarks/kernels.py [--output benchmarks/results/kernels-NAME.json]

Correctness comes first: each kernel against its float64 reference, and nothing is timed when one
is wrong. Then times beside floors that are measured in the same run: bytes over a copy's bandwidth,
operations over the rate of torch's matrix product. Times are medians over `--repeats` launches,
with the L2 cache overwritten before each. Prints a table, and writes the same as JSON.

Without a GPU it says so and exits with code 3.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Final

import torch
import typer
from rich.console import Console
from rich.table import Table

from idetex_edge.cli.script import run

NO_GPU: Final = 3
"""The exit code when there is nothing to measure on."""
_L2: Final = 256 * 2**20
"""Bytes that are written between launches: more than any L2 cache holds."""


@dataclass(frozen=True, slots=True)
class Case:
    """A launch to check and time.

    run: launches the kernel and returns its output. right: the reference's, float64. moved: bytes
    that must be read and written. operations: of the matrix products. peer: the same in torch.
    """

    name: str
    run: Callable[[], torch.Tensor]
    right: Callable[[], torch.Tensor]
    moved: int
    operations: int
    tolerance: float
    peer: Callable[[], torch.Tensor] | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured of a case: times in microseconds, and the floor's share of the time."""

    name: str
    error: float
    microseconds: float
    floor: float
    share: float
    peer: float | None


def kernels(
    output: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
    repeats: Annotated[int, typer.Option(min=3, help="Launches of each kernel.")] = 50,
) -> None:
    """Check and time every kernel on this machine's GPU."""
    if not torch.cuda.is_available():
        print("no NVIDIA GPU here: nothing was measured", file=sys.stderr)
        raise SystemExit(NO_GPU)
    torch.manual_seed(0)
    console = Console()
    cases = list(_cases())
    errors = {case.name: error_of(case.run().cpu(), case.right()) for case in cases}
    if wrong := [case for case in cases if not errors[case.name] <= case.tolerance]:
        for case in wrong:
            print(f"error: {case.name} is off by {errors[case.name]:.1e}", file=sys.stderr)
        raise SystemExit(1)
    bandwidth, rate = _bandwidth(repeats), _rate(repeats)
    rows = [_measure(case, errors[case.name], bandwidth, rate, repeats) for case in cases]
    device = torch.cuda.get_device_properties(0)
    console.print(
        f"{device.name}: copies {bandwidth / 1e9:.0f} GB/s, FP16 products {rate / 1e12:.0f} TFLOP/s"
    )
    console.print(_table(rows))
    if output is not None:
        facts = {
            "device": device.name,
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "copy_bytes_per_second": bandwidth,
            "matrix_operations_per_second": rate,
            "kernels": [asdict(row) for row in rows],
        }
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(facts, indent=1) + "\n")


def error_of(got: torch.Tensor, right: torch.Tensor) -> float:
    """Root mean square of the error over that of the reference; infinite where any is NaN."""
    difference = (got.double() - right.double()).square().mean().sqrt()
    ratio = float(difference / right.double().square().mean().sqrt())
    return ratio if ratio == ratio else float("inf")


def _cases() -> Iterator[Case]:
    for form in ("float", "int8", "int4"):
        yield linear_case(form, 1, 11008, 4096, "cuda")
    for form in ("float", "integer"):
        yield linear_case(form, 1024, 2048, 2048, "cuda")
    yield decode_case(8, 8192, 0, "cuda")
    yield decode_case(8, 1500, 64, "cuda")


def linear_case(form: str, rows: int, outputs: int, inputs: int, device: str) -> Case:
    """A linear layer of random numbers in a number format."""
    from kernels import linear
    from kernels.append import quantized
    from kernels.packing import pack_int4

    weight = torch.randn(outputs, inputs) * inputs**-0.5
    stored, scale = weight.half(), torch.ones(outputs)
    if form != "float":
        stored, scale = pack_int4(weight) if form == "int4" else quantized(weight)
    x, steps = torch.randn(rows, inputs).half(), None
    seen: torch.Tensor = x
    if form == "integer":
        x, steps = quantized(x)
        seen = x.double() * steps.double()[:, None]
    bias = torch.randn(outputs)
    given = [tensor.to(device) for tensor in (x, stored, scale, bias)]
    x_scale = None if steps is None else steps.to(device)
    result = torch.empty(rows, outputs, dtype=torch.float16, device=device)
    chosen = linear.variant(form, "plain", "few" if rows <= 16 else "many")
    dense = weight.half().to(device)

    def run() -> torch.Tensor:
        linear.linear(chosen, result, *given, x_scale=x_scale)
        return result

    def peer() -> torch.Tensor:
        return torch.nn.functional.linear(seen_on_device, dense, bias_on_device)

    seen_on_device, bias_on_device = seen.half().to(device), bias.half().to(device)
    return Case(
        f"linear {form} {rows} x {inputs} -> {outputs}",
        run,
        lambda: linear.reference(seen, linear.widened(form, stored, scale), bias, "plain"),
        sum(tensor.nbytes for tensor in (*given, result)),
        2 * rows * outputs * inputs,
        2e-3,
        peer,
    )


def decode_case(forks: int, prefix: int, tail: int, device: str) -> Case:
    """Decode attention over INT8 keys and values in Qwen2.5-VL-3B's shape.

    tail: 0 gives each row a prefix of its own; otherwise all share one and have tails.
    """
    from kernels import decode_attention as module
    from kernels.append import quantized

    heads, kv_heads, size, chunk = 16, 2, 128, 256
    group = heads // kv_heads
    alone = tail == 0
    chains = [
        [(row * prefix, prefix)] if alone else [(0, prefix), (prefix + row * tail, tail)]
        for row in range(forks)
    ]
    used = forks * prefix if alone else prefix + forks * tail
    slots = -(-used // 16) * 16
    (keys, key_scales), (values, value_scales) = (
        quantized(torch.randn(kv_heads, slots, size)) for _ in range(2)
    )
    query = torch.randn(forks, heads, size).half()
    tables: dict[bool, list[list[int]]] = {False: [], True: []}
    rows: list[int] = []
    readers: dict[tuple[int, int], list[int]] = {}
    for row, chain in enumerate(chains):
        for start, count in chain:
            for begin in range(0, count, chunk):
                piece = (start + begin, min(chunk, count - begin))
                readers.setdefault(piece, []).append(row)
    for (start, count), some in readers.items():
        tables[len(some) > 1].append([start, count, len(rows), len(some)])
        rows += some
    held = keys.to(device), values.to(device)
    scales = key_scales.to(device), value_scales.to(device)
    asked = query.to(device)
    partial = torch.empty(len(rows), heads, size, device=device)
    weight = torch.empty(len(rows), heads, device=device)
    viewers = torch.tensor(rows, dtype=torch.int32, device=device)
    offsets = torch.cat((torch.zeros(1), torch.bincount(torch.tensor(rows)).cumsum(0)))
    offsets = offsets.int().to(device)
    parts = torch.argsort(torch.tensor(rows), stable=True).int().to(device)
    result = torch.empty_like(asked)
    launches = [
        (
            module.variant(size, group, "int8", shared=shared),
            torch.tensor(table, dtype=torch.int32, device=device),
        )
        for shared, table in tables.items()
        if table
    ]
    joined = module.merge_variant(size)

    def run() -> torch.Tensor:
        for chosen, table in launches:
            module.decode_attention(chosen, partial, weight, asked, *held, *scales, table, viewers)
        module.merge(joined, result, partial, weight, offsets, parts)
        return result

    wide = (keys.double() * key_scales[..., None], values.double() * value_scales[..., None])
    return Case(
        f"decode attention INT8, {forks} rows, "
        + (f"{prefix} tokens each" if alone else f"{prefix} shared, {tail} own"),
        run,
        lambda: module.reference(query, *wide, chains),
        used * kv_heads * (2 * size + 8) + 2 * query.nbytes,
        4 * sum(count for chain in chains for _, count in chain) * heads * size,
        2e-3,
    )


def _measure(case: Case, error: float, bandwidth: float, rate: float, repeats: int) -> Row:
    took = _median(case.run, repeats)
    floor = max(case.moved / bandwidth, case.operations / rate) * 1e6
    peer = None if case.peer is None else _median(case.peer, repeats)
    return Row(case.name, error, took, floor, floor / took, peer)


def _median(work: Callable[[], object], repeats: int) -> float:
    """Microseconds of a launch, with a cold L2 cache."""
    flush = torch.empty(_L2, dtype=torch.int8, device="cuda")
    work()
    times: list[float] = []
    for _ in range(repeats):
        flush.zero_()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) * 1000)
    return statistics.median(times)


def _bandwidth(repeats: int) -> float:
    """Bytes a second, read and written, of a copy that no cache holds."""
    source = torch.empty(2**29, dtype=torch.int8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / (_median(lambda: target.copy_(source), repeats) * 1e-6)


def _rate(repeats: int) -> float:
    """Operations a second of torch's FP16 product of 4096 x 4096 matrices."""
    a, b = (torch.randn(4096, 4096, device="cuda").half() for _ in range(2))
    return 2 * 4096**3 / (_median(lambda: a @ b, repeats) * 1e-6)


def _table(rows: list[Row]) -> Table:
    table = Table("kernel", "error", "us", "floor us", "of floor", "torch us")
    for row in rows:
        peer = "" if row.peer is None else f"{row.peer:.1f}"
        table.add_row(
            row.name,
            f"{row.error:.1e}",
            f"{row.microseconds:.1f}",
            f"{row.floor:.1f}",
            f"{row.share:.0%}",
            peer,
        )
    return table


if __name__ == "__main__":
    # A script's folder comes first on the path, and in it this file hides the package of its name.
    here = Path(__file__).resolve().parent
    sys.path[:] = [place for place in sys.path if Path(place).resolve() != here]
    run(kernels)
