"""Whether TensorRT-RTX can build one attention, asked of TensorRT-RTX."""

from __future__ import annotations

import importlib
from typing import Any

import onnx_ir as ir
from onnxscript import GraphBuilder


def builds(heads: int, size: int, masked: bool) -> bool:
    """Build [1..9, heads, 8..64 tokens, size] in FP16; whether that succeeds."""
    trt: Any = importlib.import_module("tensorrt_rtx")
    log = trt.Logger(trt.Logger.INTERNAL_ERROR)
    builder = trt.Builder(log)
    network = builder.create_network(0)
    assert trt.OnnxParser(network, log).parse(_graph(heads, size, masked))
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        value = network.get_input(index)
        fixed = tuple(value.shape)[1], tuple(value.shape)[3]
        shapes = [
            (batch, fixed[0], tokens, tokens if value.name == "mask" else fixed[1])
            for batch, tokens in ((1, 8), (4, 32), (9, 64))
        ]
        profile.set_shape(value.name, *shapes)
    config.add_optimization_profile(profile)
    return builder.build_serialized_network(network, config) is not None


def _graph(heads: int, size: int, masked: bool) -> bytes:
    graph = ir.Graph([], [], nodes=[], name="attention", opset_imports={"": 24})
    builder = GraphBuilder(graph)
    shape = ["batch", heads, "tokens", size]
    inputs = [builder.input(name, ir.DataType.FLOAT16, shape) for name in "qkv"]
    if masked:
        inputs.append(builder.input("mask", ir.DataType.BOOL, ["batch", 1, "tokens", "tokens"]))
    mixed = builder.op.Attention(*inputs)
    mixed.type, mixed.shape = ir.TensorType(ir.DataType.FLOAT16), ir.Shape(shape)
    builder.add_output(mixed, "mixed")
    return ir.to_proto(ir.Model(graph, ir_version=10)).SerializeToString()
