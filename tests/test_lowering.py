from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_convert import SHAPES

from export.bundling.graphs import Recipe, lowered_graphs
from export.calibration.plan import LayerPlan, Plan
from export.checkpoint import open_checkpoint
from export.graphs.decoder import embedding_table
from export.graphs.matrices import matrices, plain_graphs
from export.graphs.rows import Array
from export.graphs.vision import vision_graph
from export.lowering.balancing import Source, sources
from export.lowering.emitter import CONTRIB, Emitter
from export.lowering.matrices import FORMS, Matrix
from export.targets import TARGETS

LOOPS = {"Scan", "Loop", "NonZero", "If"}
NEW = {"Attention", "RotaryEmbedding", "RMSNormalization", "TensorScatter", "Gelu"}


def graphs(folder: Path, target: str, precision: str) -> dict[str, ir.Model]:
    """A checkpoint's graphs for a target, every matrix with a step of 0.1."""
    checkpoint = open_checkpoint(folder)
    table = embedding_table(checkpoint, "float16")
    found = TARGETS[target]
    names = [name for model in plain_graphs(checkpoint) for name in matrices(model)]
    plan = Plan({name: LayerPlan(0.1, "min-max", 0.0) for name in names})
    recipe = Recipe(checkpoint, found, found.precisions[precision], plan)
    return dict(lowered_graphs(recipe, table))


def kinds(model: ir.Model) -> set[str]:
    return {node.op_type for node in model.graph}


@pytest.mark.parametrize("save", SHAPES)
def test_every_target_and_precision_has_only_its_own_operators(
    save: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder = save(tmp_path / "model")
    for name, target in TARGETS.items():
        for precision in target.precisions:
            for model in graphs(folder, name, precision).values():
                domains = {node.domain for node in model.graph}
                assert domains <= ({"", CONTRIB} if name == "onnx-cpu" else {""})
                assert not kinds(model) & LOOPS
                if name == "tensorrt-10.3":
                    assert not kinds(model) & NEW


@pytest.mark.parametrize("save", SHAPES)
@pytest.mark.parametrize("precision", ["int8-weights", "int4", "int4-32"])
def test_every_matrix_is_whole_numbers_whatever_its_width(
    save: Callable[[Path], Path], precision: str, tmp_path: Path
) -> None:
    """Blocks that do not divide a row are filled up, not left in float."""
    whole = {ir.DataType.INT4, ir.DataType.INT8}
    for model in graphs(save(tmp_path / "model"), "onnx-standard", precision).values():
        matrices = [
            value.dtype
            for value in model.graph.initializers.values()
            if len(value.shape or ()) == 2 and not str(value.name).endswith(".scale")
        ]
        # The output matrix is the embedding table, which keeps its type.
        assert sum(kind not in whole for kind in matrices) <= ("last_slots" in _inputs(model))
        assert sum(kind in whole for kind in matrices) > 8


def _inputs(model: ir.Model) -> set[str | None]:
    return {value.name for value in model.graph.inputs}


def test_standard_graphs_have_the_native_operators(tiny_checkpoint: Path) -> None:
    found = graphs(tiny_checkpoint, "onnx-standard", "fp32")
    assert {"Attention", "RotaryEmbedding", "RMSNormalization"} <= kinds(found["vision"])
    assert kinds(found["decoder"]) >= NEW - {"Gelu"}
    for node in found["decoder"].graph:
        if node.op_type == "Attention":
            assert len(node.outputs) == 1


def test_matrices_that_read_the_same_patches_share_their_rounding(tiny_checkpoint: Path) -> None:
    found = graphs(tiny_checkpoint, "onnx-cpu", "int8")["vision"].graph
    readers = [
        [use.node.name for use in node.outputs[0].uses()]
        for node in found
        if node.op_type == "DynamicQuantizeLinear"
    ]
    blocks = [f"visual.blocks.{i}" for i in range(3)]
    shares = [[f"{block}.attn.qkv.{i}" for i in range(3)] for block in blocks]
    gated = [[f"{block}.mlp.gate_proj", f"{block}.mlp.up_proj"] for block in blocks]
    assert sorted(readers) == sorted([*shares, *gated])


def test_caches_for_tensorrt_have_one_length(tiny_checkpoint: Path) -> None:
    decoder = graphs(tiny_checkpoint, "tensorrt-rtx", "fp16")["decoder"]
    caches = [v for v in (*decoder.graph.inputs, *decoder.graph.outputs) if "_key_" in str(v.name)]
    assert len(caches) == 4
    for value in caches:
        assert value.shape is not None
        assert value.shape[2] == 2048
        assert value.dtype == ir.DataType.FLOAT16


def test_sources_of_inputs(tiny_checkpoint: Path) -> None:
    checkpoint = open_checkpoint(tiny_checkpoint)
    found = sources(vision_graph(checkpoint))
    block = "visual.blocks.0"
    assert found[f"{block}.norm1"].readers == [f"{block}.attn.qkv.{share}" for share in range(3)]
    assert found[f"{block}.norm2"].readers == [f"{block}.mlp.gate_proj", f"{block}.mlp.up_proj"]
    assert found[f"{block}.mlp.up_proj"] == Source(96, [f"{block}.mlp.down_proj"])
    assert found["visual.merger.ln_q"] == Source(64, ["visual.merger.mlp.0"])
    assert {name.rpartition(".")[2] for name in found} == {"norm1", "norm2", "up_proj", "ln_q"}


def run_form(form: str, rows: Array, weight: Array, bias: Array, step: float) -> Array:
    """Multiply by a matrix of some form, in ONNX Runtime."""
    graph = ir.Graph([], [], nodes=[], name="one", opset_imports={"": 24, CONTRIB: 1})
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(rows.shape))
    graph.inputs.append(x)
    emit = Emitter(graph)
    bias_value = emit.weight(ir.Tensor(bias), "bias")
    y = FORMS[form](emit, Matrix("m", x, ir.Tensor(weight), bias_value, step))
    graph.extend(emit.nodes)
    y.name, y.type = "y", ir.TensorType(ir.DataType.FLOAT)
    graph.outputs.append(y)
    model = ir.to_proto(ir.Model(graph, ir_version=10)).SerializeToString()
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": rows})[0])


def error(form: str) -> float:
    """How far a form may be off, relative, on normal numbers."""
    if form == "float32":
        return 1e-6
    if form == "float16":
        return 2e-3
    return 0.2 if "int4" in form else 0.03


@pytest.mark.parametrize("form", list(FORMS))
@settings(max_examples=5)
@given(
    rows=st.integers(1, 5),
    inputs=st.sampled_from([16, 32, 64, 96, 128, 160, 256]),
    outputs=st.sampled_from([16, 32, 80]),
    seed=st.integers(0, 2**16),
)
def test_every_form_multiplies(form: str, rows: int, inputs: int, outputs: int, seed: int) -> None:
    chance = np.random.default_rng(seed)
    x, weight, bias = (
        chance.normal(size=shape).astype(np.float32)
        for shape in ((rows, inputs), (outputs, inputs), (outputs,))
    )
    weight[0] = 0  # A row of zeros has no scale of its own.
    expected = x @ weight.T + bias
    got = run_form(form, x, weight, bias, float(np.abs(x).max()) / 127)
    assert np.linalg.norm(got - expected) <= error(form) * np.linalg.norm(expected)
    np.testing.assert_allclose(got[:, 0], np.full(rows, bias[0]), atol=1e-2)


def test_whole_number_forms_round_as_they_say() -> None:
    """The static form equals rounding by hand."""
    chance = np.random.default_rng(1)
    x, weight = (chance.normal(size=s).astype(np.float32) for s in ((3, 64), (16, 64)))
    step = 0.02
    scale = np.abs(weight).max(axis=1, keepdims=True) / 127
    rounded = np.clip(np.rint(x / np.float32(step)), -128, 127) * step
    expected = rounded @ (np.rint(weight / scale) * scale).T
    got = run_form("static_int8", x, weight, np.zeros(16, np.float32), step)
    np.testing.assert_allclose(got, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("form", "bits", "block"),
    [
        ("block_int8", 8, 64),
        ("block_int4_128", 4, 128),
        ("block_int4_32", 4, 32),
        ("stored_int8_32", 8, 32),
        ("stored_int4_128", 4, 128),
        ("stored_int4_32", 4, 32),
        ("stored_int4_128_float16", 4, 128),
    ],
)
def test_blocks_round_as_they_say(form: str, bits: int, block: int) -> None:
    # ONNX Runtime's kernels for blocks round what they multiply to 8 bits.
    ratio = 1e-2
    chance = np.random.default_rng(2)
    x, weight = (chance.normal(size=s).astype(np.float32) for s in ((3, 272), (16, 272)))
    limit = 2 ** (bits - 1) - 1
    rounded = np.zeros_like(weight)
    for row, start in np.ndindex(16, -(-272 // block)):
        part = weight[row, start * block : (start + 1) * block]
        step = np.abs(part).max() / limit
        rounded[row, start * block : (start + 1) * block] = np.rint(part / step) * step
    got = run_form(form, x, weight, np.zeros(16, np.float32), 0.0)
    expected = x @ rounded.T
    assert np.linalg.norm(got - expected) <= ratio * np.linalg.norm(expected)
    # Rounding the weights moves the product further than that.
    if bits == 4:
        assert np.linalg.norm(got - x @ weight.T) > 5 * ratio * np.linalg.norm(expected)
