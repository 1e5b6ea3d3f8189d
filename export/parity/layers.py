"""Which matrices differ most from the checkpoint's, each on the inputs that it really sees."""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch

from export.bundling.graphs import Recipe
from export.calibration.observe import Observation
from export.graphs.matrices import matrices, plain_graphs
from export.graphs.rows import Array
from export.graphs.write import Advance
from export.lowering.balancing import balance, sources
from export.lowering.emitter import CONTRIB, Emitter
from export.lowering.matrices import FORMS, Matrix
from export.parity.answers import Answer
from export.parity.pictures import Photograph
from export.parity.reference import Reference
from idetex_edge.bundle import Bundle
from idetex_edge.tokenizer import BundleTokenizer
from idetex_edge.vocabulary import IMAGE_PAD

WORST: Final = 5
"""How many are named."""


def worst_layers(
    recipe: Recipe, reference: Reference, bundle: Bundle, picture: Photograph, advance: Advance
) -> dict[str, float]:
    """Name the matrices with the largest ||y' - y|| / ||y||, largest first."""
    seen = _see(reference, bundle, picture)
    precision = recipe.precision
    graphs = plain_graphs(recipe.checkpoint)
    factors = recipe.plan.factors()
    divisors: dict[str, Array] = {}
    for model in graphs:
        balance(model, factors)
        for name, source in sources(model).items():
            if name in factors:
                divisors |= dict.fromkeys(source.readers, factors[name])
    every = [
        (name, weight, form)
        for model, form in zip(graphs, (precision.vision, precision.decoder), strict=True)
        for name, weight in matrices(model).items()
    ]
    errors: dict[str, float] = {}
    for done, (name, weight, default) in enumerate(every):
        advance("looking for the worst layers", done + 1, len(every))
        form, step = recipe.applied.choose(default, precision, name)
        rows = seen.of(name).rows
        if name in divisors:
            rows = rows / np.tile(divisors[name], rows.shape[1] // len(divisors[name]))
        errors[name] = _error(form, step, rows, weight)
    worst = sorted(errors, key=lambda name: -errors[name])[:WORST]
    return {name: errors[name] for name in worst}


def _see(reference: Reference, bundle: Bundle, picture: Photograph) -> Observation:
    patched = bundle.manifest.preprocessor.patchify(picture.load())
    prompt = bundle.manifest.prompts["grounding"]
    rows, columns = (side // bundle.manifest.vision.merge for side in patched.grid)
    tokenizer = BundleTokenizer(bundle)
    head = tokenizer.encode(prompt.head(columns, rows) + IMAGE_PAD * (rows * columns))
    seen = Observation()
    chance = np.random.default_rng(0)

    def watch(layer: str, x: torch.Tensor, y: torch.Tensor) -> None:
        seen.see(layer, x, y, chance)

    with reference.watching(watch):
        reference.read([Answer("grounding", head, tokenizer.encode(prompt.tail()), [])], patched)
    return seen


def _error(form: str, step: float, rows: Array, weight: ir.TensorProtocol) -> float:
    """Run one matrix in its form, alone, and compare with the plain product."""
    graph = ir.Graph([], [], nodes=[], name="matrix", opset_imports={"": 24, CONTRIB: 1})
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(rows.shape))
    graph.inputs.append(x)
    emitter = Emitter(graph)
    product = FORMS[form](emitter, Matrix("matrix", x, weight, None, step))
    graph.extend(emitter.nodes)
    product.name, product.type = "y", ir.TensorType(ir.DataType.FLOAT)
    graph.outputs.append(product)
    model = ir.to_proto(ir.Model(graph, ir_version=10)).SerializeToString()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"x": np.ascontiguousarray(rows)})
    expected = rows @ weight.numpy().T
    return float(np.linalg.norm(got - expected) / max(float(np.linalg.norm(expected)), 1e-12))
