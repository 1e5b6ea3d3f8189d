"""A checkpoint's weights as `kernels/linear.py` reads them, one tensor at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt
import torch

from export.calibration.plan import END_OF_HALF
from export.checkpoint import Checkpoint
from idetex_edge.errors import ExportError
from idetex_edge.triton.contents import ALIGNMENT, TensorFacts
from kernels.append import quantized
from kernels.linear import GRAIN
from kernels.packing import pack_int4

Array = npt.NDArray[Any]
_Form = Callable[[npt.NDArray[np.float32]], tuple[Array, Array | None]]


def _float(matrix: npt.NDArray[np.float32]) -> tuple[Array, Array | None]:
    return matrix.astype(np.float16), None


def _int8(matrix: npt.NDArray[np.float32]) -> tuple[Array, Array | None]:
    levels, scale = quantized(torch.from_numpy(matrix))
    return levels.numpy(), scale.numpy()


def _int4(matrix: npt.NDArray[np.float32]) -> tuple[Array, Array | None]:
    packed, scale = pack_int4(torch.from_numpy(matrix))
    return packed.numpy(), scale.numpy()


FORMS: Final[dict[str, _Form]] = {"float": _float, "int8": _int8, "int4": _int4}

PRECISIONS: Final[dict[str, tuple[str, str]]] = {
    "fp16": ("float", "float"),
    "int8": ("int8", "int8"),
    "int4": ("int8", "int4"),
}
"""Formats of the vision encoder's matrices and of the language model's; the head stays FP16."""


@dataclass(slots=True)
class Writer:
    """Writes tensors one behind the other, each aligned, and remembers where."""

    file: BinaryIO
    tensors: dict[str, TensorFacts] = field(default_factory=dict[str, TensorFacts])
    forms: dict[str, str] = field(default_factory=dict[str, str])

    def tensor(self, name: str, data: Array) -> None:
        """Write one tensor, little-endian and row-major."""
        self.file.write(bytes(-self.file.tell() % ALIGNMENT))
        data = np.ascontiguousarray(data)
        self.tensors[name] = TensorFacts(
            self.file.tell(), data.nbytes, data.dtype.name, tuple(data.shape)
        )
        self.file.write(data.tobytes())

    def matrix(self, name: str, form: str, weight: Array, bias: Array | None) -> None:
        """Write a linear layer, its inputs padded to what kernels take; no bias is one of zeros.

        Raises ExportError where a weight in FP16 would overflow.
        """
        if form == "float" and not np.abs(weight).max() <= END_OF_HALF:
            raise ExportError(f"{name} has weights beyond FP16's range; choose int8 or int4")
        weight = np.pad(weight, ((0, 0), (0, -weight.shape[1] % GRAIN)))
        stored, scale = FORMS[form](np.ascontiguousarray(weight, np.float32))
        self.forms[name] = form
        self.tensor(f"{name}.weight", stored)
        if scale is not None:
            self.tensor(f"{name}.scale", scale)
        zeros = np.zeros(len(weight), np.float32)
        self.tensor(f"{name}.bias", zeros if bias is None else bias.astype(np.float32))

    def norm(self, name: str, weight: Array, bias: Array | None) -> None:
        """Write a norm's vectors."""
        self.tensor(f"{name}.weight", weight.astype(np.float32))
        zeros = np.zeros(len(weight), np.float32)
        self.tensor(f"{name}.bias", zeros if bias is None else bias.astype(np.float32))


def write_weights(
    checkpoint: Checkpoint, precision: str, writer: Writer, quiet: Mapping[str, float]
) -> Iterator[str]:
    """Write every tensor that the engine reads; gives each layer's name when it is written.

    quiet: what the inputs of each `down_proj` named are divided by (see `export.triton.range`).
    """
    vision_form, text_form = PRECISIONS[precision]
    source = _Source(checkpoint, quiet)
    for layer in _vision(source, vision_form, writer):
        yield layer
    for layer in _text(source, text_form, writer):
        yield layer


def _vision(source: _Source, form: str, writer: Writer) -> Iterator[str]:
    checkpoint = source.checkpoint
    embed = checkpoint.weights.read("visual.patch_embed.proj.weight")
    writer.matrix("vision.embed", form, embed.reshape(len(embed), -1), None)
    for i in range(checkpoint.vision.layers):
        theirs, ours = f"visual.blocks.{i}", f"vision.blocks.{i}"
        for norm in ("norm1", "norm2"):
            writer.norm(f"{ours}.{norm}", *source.affine([f"{theirs}.{norm}"]))
        writer.matrix(f"{ours}.qkv", form, *source.affine([f"{theirs}.attn.qkv"]))
        writer.matrix(f"{ours}.proj", form, *source.affine([f"{theirs}.attn.proj"]))
        if f"{theirs}.mlp.fc1.weight" in checkpoint.weights:
            for layer in ("fc1", "fc2"):
                writer.matrix(f"{ours}.{layer}", form, *source.affine([f"{theirs}.mlp.{layer}"]))
        else:
            _gated(writer, source, form, ours, f"{theirs}.mlp")
        yield ours
    writer.norm("vision.norm", *source.affine(["visual.merger.ln_q"]))
    for ours, theirs in (("merge1", "mlp.0"), ("merge2", "mlp.2")):
        writer.matrix(f"vision.{ours}", form, *source.affine([f"visual.merger.{theirs}"]))


def _text(source: _Source, form: str, writer: Writer) -> Iterator[str]:
    checkpoint = source.checkpoint
    for i in range(checkpoint.text.layers):
        name = f"text.layers.{i}"
        writer.norm(f"{name}.norm1", *source.affine([f"{name}.input_layernorm"]))
        parts = [f"{name}.self_attn.{part}_proj" for part in "qkv"]
        writer.matrix(f"{name}.qkv", form, *source.affine(parts))
        writer.matrix(f"{name}.out", form, *source.affine([f"{name}.self_attn.o_proj"]))
        writer.norm(f"{name}.norm2", *source.affine([f"{name}.post_attention_layernorm"]))
        _gated(writer, source, form, name, f"{name}.mlp")
        yield name
    writer.norm("text.norm", *source.affine(["text.norm"]))
    head = "text.embed_tokens" if checkpoint.tied else "head"
    writer.matrix("text.head", "float", *source.affine([head]))
    yield "text.head"


def _gated(writer: Writer, source: _Source, form: str, ours: str, theirs: str) -> None:
    """Gate above up, both padded to what the layer behind them takes: the padding gives zeros."""
    down, bias = source.affine([f"{theirs}.down_proj"])
    factor = source.quiet.get(f"{theirs}.down_proj", 1.0)
    gate = source.affine([f"{theirs}.gate_proj"])
    weight, up_bias = source.affine([f"{theirs}.up_proj"])
    up = (weight / factor, None if up_bias is None else up_bias / factor)
    more = -len(gate[0]) % GRAIN
    weight = np.concatenate([np.pad(matrix, ((0, more), (0, 0))) for matrix, _ in (gate, up)])
    biases = [np.pad(bias, (0, more)) for _, bias in (gate, up) if bias is not None]
    writer.matrix(f"{ours}.gate_up", form, weight, np.concatenate(biases) if biases else None)
    writer.matrix(f"{ours}.down", form, down * factor, bias)


@dataclass(frozen=True, slots=True)
class _Source:
    checkpoint: Checkpoint
    quiet: Mapping[str, float]

    def affine(self, names: Sequence[str]) -> tuple[Array, Array | None]:
        """Weights of layers, one above the other, and their biases where they have any."""
        weights = self.checkpoint.weights
        weight = np.concatenate([weights.read(f"{name}.weight") for name in names])
        if f"{names[0]}.bias" not in weights:
            return weight, None
        return weight, np.concatenate([weights.read(f"{name}.bias") for name in names])
