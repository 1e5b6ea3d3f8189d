"""What kernels compute on a GPU of host memory: their plain references, rounded as they round."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from kernels import append, decode_attention, linear, norm, prefill_attention, projector
from kernels.variant import Variant


class Memory(Protocol):
    processors: int

    def view(self, address: int, kind: str, *shape: int) -> np.ndarray[Any, Any]: ...


@dataclass(frozen=True)
class Launch:
    gpu: Memory
    variant: Variant
    grid: tuple[int, int]
    arguments: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def constant(self, name: str) -> Any:
        return self.variant.constants[name]

    def array(self, name: str, *shape: int) -> np.ndarray[Any, Any]:
        return self.gpu.view(self.arguments[name], self.variant.types[name], *shape)

    def tensor(self, name: str, *shape: int) -> torch.Tensor:
        return torch.from_numpy(self.array(name, *shape))

    def cache(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Keys and values, and both multiplied by their scales in float64."""
        size, capacity = self.constant("HEAD_DIM"), self["capacity"]
        heads = self["kv_heads"] if "kv_heads" in self.arguments else self.kv_heads()
        held = [self.tensor(name, heads, capacity, size) for name in ("keys", "values")]
        if not self.constant("QUANTIZED"):
            return held, [part.double() for part in held]
        scales = [self.tensor(f"{name}_scales", heads, capacity) for name in ("key", "value")]
        wide = [p.double() * s.double()[..., None] for p, s in zip(held, scales, strict=True)]
        return held, wide

    def kv_heads(self) -> int:
        return self["heads"] // (
            self["group"] if "group" in self.arguments else self.constant("GROUP")
        )


def _append(run: Launch) -> None:
    tokens, heads, kv_heads, size = (
        run["tokens"], run["heads"], run["kv_heads"], run.constant("HEAD_DIM")
    )  # fmt: skip
    assert run.grid == (tokens, heads + 2 * kv_heads)
    positions = run.tensor("positions", 3, tokens)
    rows = int(positions.max()) + 1
    sections = (run["time"], run["height"], size // 2 - run["time"] - run["height"])
    cos, sin = (run.tensor(name, rows, size // 2) for name in ("cos", "sin"))
    qkv = run.tensor("qkv", tokens, (heads + 2 * kv_heads) * size)
    q, *new = append.reference(qkv, cos, sin, positions, sections, heads, kv_heads)
    run.array("query", tokens, heads, size)[:] = q.numpy()
    slots = run.array("slots", tokens)
    assert len(set(slots.tolist())) == tokens
    assert slots.max() < run["capacity"]
    for name, part, cache in zip(("key", "value"), new, run.cache()[0], strict=True):
        held = part.transpose(0, 1)
        if run.constant("QUANTIZED"):
            held, scales = append.quantized(held)
            run.array(f"{name}_scales", kv_heads, run["capacity"])[:, slots] = scales.numpy()
        cache.numpy()[:, slots] = held.numpy()


def _decode_attention(run: Launch) -> None:
    heads, size, group = run["heads"], run.constant("HEAD_DIM"), run.constant("GROUP")
    assert run.grid[1] * group == heads
    keys, values = run.cache()[1]
    for start, length, first, members in run.array("chunks", run.grid[0], 4).tolist():
        if not length:
            continue
        assert 0 < members * group <= run.constant("BLOCK_M")
        rows = run.array("rows", first + members)[first:]
        query = run.tensor("query", int(rows.max()) + 1, heads, size)[rows.tolist()].double()
        found = decode_attention.reference(query, keys, values, [[(start, length)]] * members)
        chunk = keys[:, start : start + length].repeat_interleave(group, 0)
        scores = torch.einsum("mhd,hsd->mhs", query, chunk) * run["scale"]
        weight = torch.log2(torch.exp2(scores).sum(-1))
        run.array("partial", first + members, heads, size)[first:] = found.numpy()
        run.array("weight", first + members, heads)[first:] = weight.numpy()


def _merge(run: Launch) -> None:
    (rows, heads), size = run.grid, run.constant("HEAD_DIM")
    assert heads == run["heads"]
    offsets = run.array("offsets", rows + 1)
    parts = run.array("parts", int(offsets[-1]))
    most = int(parts.max()) + 1
    partial, weight = run.tensor("partial", most, heads, size), run.tensor("weight", most, heads)
    output = run.array("output", rows, heads, size)
    for row in range(rows):
        mine = parts[offsets[row] : offsets[row + 1]].tolist()
        shares = torch.softmax(weight[mine].double() * np.log(2), dim=0)
        output[row] = (partial[mine].double() * shares[..., None]).sum(0).numpy()


def _prefill_attention(run: Launch) -> None:
    heads, size = run["heads"], run.constant("HEAD_DIM")
    assert run.grid[1] == heads
    blocks = run.array("blocks", run.grid[0], 5)
    runs = run.array("runs", int((blocks[:, 3] + blocks[:, 4]).max()), 2).tolist()
    tokens = int((blocks[:, 0] + blocks[:, 1]).max())
    assert blocks[:, 1].max() <= prefill_attention.QUERIES
    query = run.tensor("query", tokens, heads, size)
    keys, values = run.cache()[1]
    found = prefill_attention.reference(query, keys, values, blocks.tolist(), runs)
    run.array("output", tokens, heads, size)[:] = found.numpy()


def _linear(run: Launch) -> None:
    form, rows, outputs, inputs = (
        run.constant("FORM"), run["rows"], run["outputs"], run["inputs"]
    )  # fmt: skip
    _, _, epilogue, most = run.variant.name.split(".")[1:]
    assert int(most) == linear.tile_of(form, epilogue, rows, outputs, run.gpu.processors)
    tile = run.constant("BLOCK_M"), run.constant("BLOCK_N")
    assert run.grid == (-(-rows // tile[0]), -(-outputs // tile[1]))
    assert inputs % linear.GRAIN == 0
    wide = outputs * (2 if run.constant("GATED") else 1)
    weight = run.tensor("weight", wide, inputs // (2 if form == "int4" else 1))
    groups = (inputs // linear.GRAIN,) if form == "int4" else ()
    scale = torch.ones(1) if form == "float" else run.tensor("scale", wide, *groups)
    x, bias = run.tensor("x", rows, inputs), run.tensor("bias", wide)
    if form == "integer":
        x = x.double() * run.tensor("x_scale", rows).double()[:, None]
    residual = run.tensor("residual", rows, outputs) if run.constant("RESIDUAL") else None
    found = linear.reference(x, linear.dense(form, weight, scale), bias, epilogue, residual)
    run.array("output", rows, outputs)[:] = found.numpy()


def _norm(run: Launch) -> None:
    (rows, _), size = run.grid, run["size"]
    assert size <= run.constant("BLOCK")
    kind = "layer" if run.constant("LAYER") else "rms"
    x, weight, bias = (
        run.tensor("x", rows, size),
        run.tensor("weight", size),
        run.tensor("bias", size),
    )
    _write(run, "output", norm.reference(kind, x, weight, bias, run["epsilon"]))


def _write(run: Launch, name: str, rows: torch.Tensor) -> None:
    """Write rows in an argument's type, INT8 with their scales."""
    if run.variant.types[name] == "*i8":
        rows, scales = append.quantized(rows)
        run.array("scale", len(rows))[:] = scales.numpy()
    run.array(name, *rows.shape)[:] = rows.numpy()


def _quantize(run: Launch) -> None:
    _write(run, "output", run.tensor("x", run.grid[0], run["size"]))


def _merge_patches(run: Launch) -> None:
    (tokens, _), size, unit = run.grid, run["size"], run.constant("UNIT")
    assert size <= run.constant("BLOCK")
    kind = "layer" if run.constant("LAYER") else "rms"
    order = run.tensor("order", tokens)
    assert sorted(order.tolist()) == list(range(tokens))
    found = projector.reference(
        kind, run.tensor("x", tokens * unit, size), order, run.tensor("weight", size),
        run.tensor("bias", size), run["epsilon"],
    )  # fmt: skip
    _write(run, "rows", found)


RUN: Mapping[str, Callable[[Launch], None]] = {
    "append": _append,
    "decode_attention": _decode_attention,
    "merge": _merge,
    "prefill_attention": _prefill_attention,
    "linear": _linear,
    "norm": _norm,
    "quantize": _quantize,
    "merge_patches": _merge_patches,
}
